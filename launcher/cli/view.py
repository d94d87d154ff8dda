"""Which view of a run fits the place that its output goes to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Protocol

from launcher.cli.plain import PlainView
from launcher.run.following import Watcher


class View(Watcher, Protocol):
    """A watcher that holds the terminal until it is closed."""

    def on_event_line(self, line: str) -> None:
        """Shows a line of events.jsonl, where that was asked for."""

    def close(self) -> None:
        """Shows what is left and lets go of the terminal."""


def open_view(
    nodes: dict[int, str], *, as_json: bool, file_of: Callable[[int, str], str], title: str = ""
) -> View:
    """Returns the live view on a terminal, plain lines elsewhere.

    Args:
        nodes: each rank's node.
        file_of: names the file that has all of a rank's stream.
        as_json: stdout belongs to the events; the workers' lines are left to the files.
        title: what the run is called.
    """
    if as_json or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainView(nodes, quiet_output=as_json)
    from rich.console import Console

    from launcher.cli.live import LiveView

    return LiveView(nodes, Console(highlight=False), file_of, title)
