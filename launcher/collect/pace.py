"""How much may be on its way here at once: enough to fill the way, too little to hold logs up."""

from __future__ import annotations

from dataclasses import dataclass

# A node is asked for pieces of this size; it answers them one after the other.
PIECE_BYTES = 2 << 20
# How many answers may be awaited from a node. Both sides hold a file open for each.
MAX_REQUESTS = 16
# Logs queue behind the pieces that were asked for: what takes longer than this is asked less of.
TARGET_DELAY_S = 0.1
_MIN_WINDOW_BYTES = 128 << 10
_MAX_WINDOW_BYTES = 16 << 20


@dataclass
class NodePace:
    """One node: how many bytes it may be asked for ahead, by how soon it answers.

    Attributes:
        window_bytes: at most so much is on its way.
        asked_bytes: so much is.
        requests: in so many pieces.
    """

    window_bytes: int = PIECE_BYTES
    asked_bytes: int = 0
    requests: int = 0

    @property
    def room_bytes(self) -> int:
        """How much more it may be asked for; 0 where it must answer first."""
        if self.requests >= MAX_REQUESTS:
            return 0
        return max(0, self.window_bytes - self.asked_bytes)

    def on_asked(self, size: int) -> None:
        """It was asked for so many bytes."""
        self.asked_bytes += size
        self.requests += 1

    def on_answered(self, size: int, delay_s: float) -> None:
        """A piece of which so many bytes had been asked is here, or will not come."""
        self.asked_bytes -= size
        self.requests -= 1
        if delay_s < TARGET_DELAY_S:
            self.window_bytes = min(self.window_bytes + size, _MAX_WINDOW_BYTES)
        elif delay_s > 2 * TARGET_DELAY_S:
            self.window_bytes = max(self.window_bytes * 3 // 4, _MIN_WINDOW_BYTES)

    def forget(self) -> None:
        """Whatever it was asked for will not come."""
        self.asked_bytes = self.requests = 0


class Budget:
    """At most so many bytes a second over all nodes, with a second's worth of slack.

    >>> budget = Budget(1000, now=0.0)
    >>> budget.take(1500, now=0.0), budget.take(1, now=0.1), budget.take(1, now=1.0)
    (True, False, True)
    """

    def __init__(self, bytes_per_s: float | None, *, now: float) -> None:
        """None is without a bound."""
        self._rate = bytes_per_s
        self._left = bytes_per_s or 0.0
        self._filled_at = now

    def take(self, size: int, now: float) -> bool:
        """Takes so many bytes; False where earlier ones have to be paid off first."""
        if self._rate is None:
            return True
        self._left = min(self._rate, self._left + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._left <= 0:
            return False
        self._left -= size
        return True
