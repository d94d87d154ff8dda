"""What a transport is: it runs one command on a node and carries bytes both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from launcher.core.model import NodeSpec


class Connection(Protocol):
    """One running command on one node, with its standard input and output.

    One thread may receive while another sends; `close` may be called by any, at any time, more
    than once, and wakes both.
    """

    @property
    def node(self) -> str:
        """The node's name."""

    def send(self, data: bytes) -> None:
        """Writes all of `data` to the command's standard input; blocks while the far side is slow.

        Raises:
            NodeLost: the connection broke, or was closed here.
        """

    def receive(self, max_bytes: int) -> bytes | memoryview:
        """Returns the next bytes of its standard output, at least one; b"" at its end.

        Raises:
            NodeLost: the connection broke, or was closed here.
        """

    def exit_status(self, timeout_s: float) -> int | None:
        """Returns how the command ended, or None where that is not known within the time."""

    def stderr_tail(self) -> str:
        """Returns the end (some KiB) of what it wrote to its standard error so far."""

    def close(self) -> None:
        """Ends the connection. What runs detached on the node goes on."""


class Transport(Protocol):
    """Opens connections."""

    def open(self, node: NodeSpec, argv: Sequence[str], *, timeout_s: float) -> Connection:
        """Runs `argv` on the node.

        The words reach the program as they are; no shell on the way changes them.

        Raises:
            NodeError: one of its kinds says why there is no connection.
        """

    def close(self) -> None:
        """Ends every connection and thread that it made."""
