"""The view of a run on a terminal: lines above, a panel below that says how it stands.

Nothing of the terminal is changed, not even whether its cursor shows: the panel is drawn over, and
the cursor stands in the row below it. So however the process ends, SIGKILL included, the terminal
is as it was.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.text import Text

from launcher.cli import summary
from launcher.cli.board import Board
from launcher.cli.lines import harmless
from launcher.cli.panel import draw, rows_for
from launcher.cli.worker_lines import ShownLine, WorkerLines
from launcher.collect.checkpoints import Stored
from launcher.collect.gathered import Gathered
from launcher.collect.reports import Metrics
from launcher.core.pace import Pace
from launcher.core.stall import waited_for
from launcher.core.state import RunState
from launcher.core.usage import Usage
from launcher.wire import events

REFRESH_S = 0.1
# Of many nodes and workers, drawing takes longer than a person needs it often.
SLOW_REFRESH_S = 0.5
MANY_WORKERS = 64
# After a change of size, so many lines at most are shown again.
_REMEMBERED_LINES = 200
_UP, _HOME, _CLEAR_BELOW = "\x1b[{}A", "\x1b[H", "\x1b[J"


class LiveView:
    """Shows how the run stands in a panel; the workers' lines run above."""

    # A terminal that is closed sends a signal instead.
    is_gone = False

    def __init__(
        self,
        nodes: dict[int, str],
        console: Console,
        file_of: Callable[[int, str], str],
        title: str = "",
    ) -> None:
        """Begins with an empty panel.

        Args:
            nodes: each rank's node.
            console: the terminal.
            file_of: names the file of a rank's stream.
            title: the run.
        """
        self._console = console
        self._board = Board(title, nodes)
        self._started = time.monotonic()
        self._refreshed = self._drawn_at = float("-inf")
        self._lines = WorkerLines(nodes, file_of)
        self._waiting: list[Text] = []
        self._seen: deque[Text] = deque(maxlen=_REMEMBERED_LINES)
        self._refresh_s = SLOW_REFRESH_S if len(nodes) > MANY_WORKERS else REFRESH_S
        self._panel: list[Text] = []
        self._drawn_rows = 0
        self._size = console.size

    def on_state(self, state: RunState) -> None:
        """Remembers how the run stands."""
        self._board.state = state

    def on_output(self, rank: int, stream: str, data: bytes) -> None:
        """Takes a worker's bytes; whole lines are shown at the next refresh."""
        self._lines.feed(rank, stream, data, time.monotonic())

    def _take_lines(self, lines: Iterable[ShownLine]) -> None:
        for line in lines:
            style = {"stderr": "red", "stdout": ""}.get(line.stream, "dim")
            self._waiting.append(Text.assemble((line.label, line.colour), (line.text, style)))

    def on_metrics(self, metrics: Metrics) -> None:
        """Takes a worker's report."""
        self._board.report(metrics)

    def on_usage(self, node: str, usage: Usage) -> None:
        """Remembers how busy a node is."""
        self._board.usage[node] = usage

    def on_pace(self, pace: Pace) -> None:
        """Remembers how the ranks step."""
        self._board.pace = pace

    def on_runtime_progress(self, node: str, progress: events.RuntimeProgress) -> None:
        """Remembers how a node's runtime gets on."""
        self._board.building[node] = progress

    def on_checkpoint(self, stored: Stored) -> None:
        """Says that a checkpoint is here."""
        words = f"checkpoint of step {stored.step} is here, {summary.size(stored.bytes)}"
        self._waiting.append(Text(words, "bold"))

    def on_collected(self, gathered: Gathered) -> None:
        """Says that a path of a working directory is here."""
        self._waiting.append(Text(summary.collected(gathered), "bold"))

    def on_problem(self, problem: str) -> None:
        """Says what went wrong."""
        self._waiting.append(Text(harmless(problem), "bold red"))

    def on_event_line(self, line: str) -> None:
        """Does nothing: events are printed where nobody watches a terminal."""

    def on_tick(self) -> None:
        """Draws anew, some times a second."""
        now = time.monotonic()
        if now - self._refreshed < REFRESH_S:
            return
        self._refreshed = now
        self._take_lines(self._lines.due(now))
        size, before = self._console.size, self._size
        if size != before or now - self._drawn_at >= self._refresh_s or not self._panel:
            self._drawn_at = now
            rows = rows_for(size.height)
            state = self._board.state
            self._board.waiting = waited_for(state, now) if state is not None else ""
            self._panel = draw(self._board, size.width, rows, now - self._started)
            self._show(self._panel)
        elif self._waiting:
            self._show(self._panel)

    def _show(self, panel: Sequence[Text]) -> None:
        """Puts new lines where the panel was, and the panel below them; in one write."""
        lines, self._waiting = self._waiting, []
        self._seen.extend(lines)
        begin = self._begin()
        if self._size != self._console.size:
            # Rows may have been wrapped or cut meanwhile, and nobody says how.
            self._size = self._console.size
            begin = _HOME + _CLEAR_BELOW
            lines = self._last_lines(self._size.width, self._size.height - len(panel) - 1)
        with self._console.capture() as captured:
            if lines:
                self._console.print(Text("\n").join(lines), soft_wrap=True)
            if panel:
                self._console.print(Text("\n").join(panel), soft_wrap=True)
        self._drawn_rows = len(panel)
        if begin or captured.get():
            self._console.file.write(begin + captured.get())
            self._console.file.flush()

    def _begin(self) -> str:
        return f"\r{_UP.format(self._drawn_rows)}{_CLEAR_BELOW}" if self._drawn_rows else ""

    def _last_lines(self, width: int, rows: int) -> list[Text]:
        """Returns the newest lines that fit into so many rows."""
        found: list[Text] = []
        for line in reversed(self._seen):
            rows -= max(1, -(-line.cell_len // max(1, width)))
            if rows < 0:
                break
            found.append(line)
        return found[::-1]

    def close(self) -> None:
        """Shows what came without a line's end and takes the panel away."""
        self._take_lines(self._lines.rest(time.monotonic()))
        self._show([])
