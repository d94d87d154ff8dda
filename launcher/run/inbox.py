"""The one queue that every node's events go to, bounded by the bytes that wait in it."""

from __future__ import annotations

import queue

from launcher.core.state import AnyEvent

# As far as nodes may run ahead of the session; their threads wait then, and so does the wire.
MAX_WAITING_BYTES = 16 * 1024 * 1024
# What an event costs besides its payload.
_EVENT_BYTES = 512

Arrival = tuple[str, AnyEvent]


class Inbox(queue.Queue[Arrival]):
    """Pairs of a node's name and what it said; putting one waits for room."""

    def __init__(self, max_bytes: int = MAX_WAITING_BYTES) -> None:
        """Takes how much may wait; the last event in may be over it."""
        self._waiting_bytes = 0
        super().__init__(max_bytes)

    # What `queue.Queue` asks its subclasses, under its lock.

    def _qsize(self) -> int:
        return self._waiting_bytes

    def _put(self, item: Arrival) -> None:
        self._waiting_bytes += _cost(item)
        super()._put(item)

    def _get(self) -> Arrival:
        item: Arrival = super()._get()
        self._waiting_bytes -= _cost(item)
        return item


def _cost(item: Arrival) -> int:
    return _EVENT_BYTES + len(getattr(item[1], "data", b""))
