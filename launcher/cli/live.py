"""The view of a run on a terminal: lines above, a panel below that says how it stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launcher.cli import summary
from launcher.cli.lines import harmless
from launcher.cli.progress import describe
from launcher.cli.worker_lines import ShownLine, WorkerLines
from launcher.collect.checkpoints import Stored
from launcher.collect.reports import Metrics
from launcher.core.pace import Pace
from launcher.core.state import NodePhase, RunPhase, RunState, WorkerPhase, WorkerState
from launcher.core.usage import Usage
from launcher.wire import events

REFRESH_S = 0.1
# Nodes are shown one by one up to this many; more are counted by how they stand.
MAX_NODE_ROWS = 8


class LiveView:
    """Shows nodes, workers, step, loss, images/s and the time; the workers' lines run above."""

    # A terminal that is closed sends a signal instead.
    is_gone = False

    def __init__(
        self, nodes: dict[int, str], console: Console, file_of: Callable[[int, str], str]
    ) -> None:
        """Takes each rank's node, the terminal, and what names the file of a rank's stream."""
        self._console = console
        self._started = time.monotonic()
        self._refreshed = 0.0
        self._state: RunState | None = None
        self._metrics: Metrics | None = None
        self._building: dict[str, events.RuntimeProgress] = {}
        self._lines = WorkerLines(nodes, file_of)
        self._waiting: list[Text] = []
        self._live = Live(
            console=console, auto_refresh=False, transient=True, vertical_overflow="crop"
        )
        self._live.start()

    def on_state(self, state: RunState) -> None:
        """Remembers how the run stands."""
        self._state = state

    def on_output(self, rank: int, stream: str, data: bytes) -> None:
        """Takes a worker's bytes; whole lines are shown at the next refresh."""
        self._lines.feed(rank, stream, data, time.monotonic())

    def _take_lines(self, lines: Iterable[ShownLine]) -> None:
        for line in lines:
            style = {"stderr": "red", "stdout": ""}.get(line.stream, "dim")
            self._waiting.append(Text.assemble((line.label, line.colour), (line.text, style)))

    def on_metrics(self, metrics: Metrics) -> None:
        """Remembers rank 0's newest report."""
        if metrics.rank == 0:
            self._metrics = metrics

    def on_usage(self, node: str, usage: Usage) -> None:
        """Does nothing: lines would be read by nobody."""

    def on_pace(self, pace: Pace) -> None:
        """Does nothing: who falls behind is said as a problem."""

    def on_runtime_progress(self, node: str, progress: events.RuntimeProgress) -> None:
        """Remembers how a node's runtime gets on."""
        self._building[node] = progress

    def on_checkpoint(self, stored: Stored) -> None:
        """Says that a checkpoint is here."""
        words = f"checkpoint of step {stored.step} is here, {summary.size(stored.bytes)}"
        self._waiting.append(Text(words, "bold"))

    def on_problem(self, problem: str) -> None:
        """Says what went wrong."""
        self._waiting.append(Text(harmless(problem), "bold red"))

    def on_event_line(self, line: str) -> None:
        """Does nothing: events are printed where nobody watches a terminal."""

    def on_tick(self) -> None:
        """Draws anew, some times a second."""
        now = time.monotonic()
        if now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            self._take_lines(self._lines.due(now))
            self._print_lines()
            self._live.update(self._panel(), refresh=True)

    def _print_lines(self) -> None:
        if self._waiting:
            self._console.print(Text("\n").join(self._waiting), soft_wrap=True)
            self._waiting = []

    def _panel(self) -> Group:
        state = self._state
        if state is None:
            return Group(Text("connecting"))
        return Group(self._headline(state), self._nodes(state), self._progress())

    def _headline(self, state: RunState) -> Text:
        elapsed = time.strftime("%H:%M:%S", time.gmtime(time.monotonic() - self._started))
        return Text.assemble(
            (f"{state.phase.value} ", "bold"), summary.standing(state), f"  {elapsed}"
        )

    def _nodes(self, state: RunState) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        if len(state.nodes) > MAX_NODE_ROWS:
            counts: dict[NodePhase, int] = {}
            for node in state.nodes.values():
                counts[node.phase] = counts.get(node.phase, 0) + 1
            table.add_row(", ".join(f"{count} {phase.value}" for phase, count in counts.items()))
            return table
        for name, node in state.nodes.items():
            workers = [worker for worker in state.workers.values() if worker.node == name]
            table.add_row(name, node.phase.value, self._doing(state, name, workers))
        return table

    def _doing(self, state: RunState, name: str, workers: list[WorkerState]) -> Text:
        if state.nodes[name].problem:
            return Text(harmless(state.nodes[name].problem), "red")
        building = self._building.get(name)
        if building is not None and state.phase is RunPhase.PREPARING:
            return Text(describe(building))
        marks = {WorkerPhase.JOINED: "●", WorkerPhase.EXITED: "✓", WorkerPhase.WAITING: "·"}
        return Text("".join(marks.get(worker.phase, "○") for worker in workers))

    def _progress(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        metrics = self._metrics
        if metrics is None:
            return table
        bar = ProgressBar(total=metrics.total or None, completed=metrics.step or 0, width=30)
        table.add_row(bar, summary.progress(metrics))
        return table

    def close(self) -> None:
        """Shows what came without a line's end and leaves the terminal as it was."""
        self._take_lines(self._lines.rest(time.monotonic()))
        self._print_lines()
        self._live.stop()
