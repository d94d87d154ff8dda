"""How the building of runtimes is shown: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from launcher.cli import summary
from launcher.wire import events

PLAIN_INTERVAL_S = 5.0


def describe(progress: events.RuntimeProgress) -> str:
    """Returns how far a build is, in one line.

    >>> describe(events.RuntimeProgress("download", 96_500_000, 965_000_000))
    'building the OneFlow runtime: download 96.5 MB of 965.0 MB'
    """
    done = f" {summary.size(progress.done)}" if progress.done else ""
    total = f" of {summary.size(progress.total)}" if progress.total else ""
    return f"building the OneFlow runtime: {progress.stage}{done}{total}"


class RuntimeProgressView:
    """One row a node that builds; any thread may tell it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, TaskID] = {}
        self._told: dict[tuple[str, str], float] = {}
        self._bars: Progress | None = None
        if sys.stderr.isatty():
            self._bars = Progress(
                TextColumn("{task.fields[node]}"),
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> RuntimeProgressView:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def on_progress(self, node: str, progress: events.RuntimeProgress) -> None:
        """Shows how far a node is."""
        with self._lock:
            if self._bars is not None:
                self._draw(self._bars, node, progress)
            else:
                self._tell(node, progress)

    def _draw(self, bars: Progress, node: str, progress: events.RuntimeProgress) -> None:
        if node not in self._rows:
            self._rows[node] = bars.add_task("", total=None, node=node)
        bars.update(
            self._rows[node],
            description=progress.stage,
            completed=progress.done,
            total=progress.total or None,
        )

    def _tell(self, node: str, progress: events.RuntimeProgress) -> None:
        key, now = (node, progress.stage), time.monotonic()
        if now - self._told.get(key, float("-inf")) >= PLAIN_INTERVAL_S:
            self._told[key] = now
            sys.stderr.write(f"{node}: {describe(progress)}\n")
            sys.stderr.flush()
