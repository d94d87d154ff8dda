"""The view of a run where nobody watches a terminal: whole lines, each with its worker's name."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from launcher.cli import summary
from launcher.cli.labels import Labels
from launcher.cli.lines import (
    LineAssembler,
    harmless,
    harmless_block,
    max_line_bytes,
    prefixed,
)
from launcher.cli.printing import let_go_of, widen, write_bytes
from launcher.cli.progress import describe
from launcher.collect.checkpoints import Stored
from launcher.collect.gathered import Gathered
from launcher.collect.reports import Metrics
from launcher.core.pace import Pace
from launcher.core.stall import waited_for
from launcher.core.state import RunPhase, RunState
from launcher.core.usage import Usage
from launcher.wire import events

OWN = "flowlaunch"
# Rank 0's reports are shown as often as this, in seconds, and so is a download.
PROGRESS_INTERVAL_S = 2.0
# A stall is told of again as often as this, in seconds.
STALL_INTERVAL_S = 10.0


class PlainView:
    """Prints a worker's stdout to stdout, its stderr and flowlaunch's own lines to stderr.

    Attributes:
        is_gone: whoever read what is printed does so no more, as `| head` does.
    """

    def __init__(self, nodes: dict[int, str], *, quiet_output: bool = False) -> None:
        """Takes each rank's node; `quiet_output` leaves the workers' lines to the files."""
        labels = Labels(nodes)
        self._prefixes = {rank: labels.of(rank).encode() for rank in nodes}
        widen(sys.stdout)
        self.is_gone = False
        self._quiet_output = quiet_output
        self._lines: dict[tuple[int, str], LineAssembler] = {}
        self._max_line_bytes = max_line_bytes(2 * len(nodes))
        self._standing = ""
        self._state: RunState | None = None
        self._shown_at: dict[str, float] = {}

    def on_state(self, state: RunState) -> None:
        """Says how far the run is, where that has changed."""
        self._state = state
        if state.phase not in (RunPhase.PREPARING, RunPhase.RUNNING):
            return
        standing = summary.standing(state)
        if standing != self._standing and not standing.startswith("0/"):
            self._standing = standing
            self._own(standing)

    def on_output(self, rank: int, stream: str, data: bytes) -> None:
        """Prints the lines that are complete now."""
        if self._quiet_output:
            return
        key = (rank, stream)
        if key not in self._lines:
            self._lines[key] = LineAssembler(self._max_line_bytes)
        self._print(rank, stream, self._lines[key].feed(data))

    def _print(self, rank: int, stream: str, block: bytes) -> None:
        if block:
            out = sys.stdout if stream == "stdout" else sys.stderr
            self._write(out, prefixed(harmless_block(block), self._prefixes[rank]))

    def _write(self, out: TextIO, data: bytes) -> None:
        try:
            write_bytes(out, data)
            out.flush()
        except BrokenPipeError:
            self.is_gone = True
            let_go_of(out)

    def on_event_line(self, line: str) -> None:
        """Prints a line of events.jsonl to stdout, for `--json`."""
        self._write(sys.stdout, f"{line}\n".encode())

    def on_metrics(self, metrics: Metrics) -> None:
        """Shows rank 0's reports, but not each."""
        last = metrics.total is not None and metrics.step == metrics.total
        if metrics.rank == 0 and (last or self._is_time("metrics")):
            self._own(summary.progress(metrics))

    def _is_time(self, subject: str, interval_s: float = PROGRESS_INTERVAL_S) -> bool:
        now = time.monotonic()
        if now - self._shown_at.get(subject, float("-inf")) < interval_s:
            return False
        self._shown_at[subject] = now
        return True

    def on_usage(self, node: str, usage: Usage) -> None:
        """Does nothing: lines would be read by nobody."""

    def on_pace(self, pace: Pace) -> None:
        """Does nothing: who falls behind is said as a problem."""

    def on_runtime_progress(self, node: str, progress: events.RuntimeProgress) -> None:
        """Shows how a node's runtime gets on."""
        if self._is_time(f"{node} {progress.stage}"):
            self._own(f"{node}: {describe(progress)}")

    def on_checkpoint(self, stored: Stored) -> None:
        """Says that a checkpoint is here."""
        self._own(f"checkpoint of step {stored.step} is here, {summary.size(stored.bytes)}")

    def on_collected(self, gathered: Gathered) -> None:
        """Says that a path of a working directory is here."""
        self._own(summary.collected(gathered))

    def on_problem(self, problem: str) -> None:
        """Says what went wrong."""
        self._own(problem)

    def on_tick(self) -> None:
        """Says now and then whom the others wait for, while workers start."""
        waiting = waited_for(self._state, time.monotonic()) if self._state is not None else ""
        if self._state is not None and waiting and self._is_time("stall", STALL_INTERVAL_S):
            self._own(f"{summary.standing(self._state)}; {waiting}")

    def close(self) -> None:
        """Prints what came without a line's end."""
        for (rank, stream), lines in self._lines.items():
            self._print(rank, stream, lines.rest())

    def _own(self, text: str) -> None:
        sys.stderr.write(f"{OWN} | {harmless(text)}\n")
        sys.stderr.flush()
