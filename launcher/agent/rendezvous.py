"""When rank 0 begins to listen: until then, all other ranks of a run wait.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import time

from launcher.agent import ports

# Every moment counts at first, and each look reads the whole table of the machine's sockets: the
# longer it takes, the less often is looked.
FIRST_PAUSE_S = 0.01
PATIENCE = 0.05


class Rendezvous:
    """Looks at rank 0's port from its import of oneflow on, until it listens or has joined."""

    def __init__(self) -> None:
        self._port = 0
        self._began = 0.0
        self._next_look = 0.0
        self._is_last = False

    def expect(self, port: int) -> None:
        """Waits for this port; 0 where rank 0 is elsewhere."""
        self._port, self._began, self._is_last = port, 0.0, False

    def on_report(self, line: bytes) -> None:
        """Takes a line that rank 0 reported."""
        if b'"importing"' in line:
            self._began = self._next_look = time.monotonic()
        elif b'"joined"' in line:
            # Both lines may have come at once; who is alone has never listened.
            self._next_look, self._is_last = time.monotonic(), True

    @property
    def pause_s(self) -> float:
        """How long to wait for the next look; for ever where none is wanted."""
        if not self._port or not self._began:
            return float("inf")
        return max(0.0, self._next_look - time.monotonic())

    def has_begun(self) -> bool:
        """Looks, where it is time to; returns, once, that rank 0 listens."""
        if self.pause_s > 0:
            return False
        if ports.is_listening(self._port):
            self.expect(0)
            return True
        if self._is_last:
            self.expect(0)
        now = time.monotonic()
        self._next_look = now + max(FIRST_PAUSE_S, PATIENCE * (now - self._began))
        return False
