"""Pings from a thread of their own: a terminal that takes no output must not end a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from launcher.wire import events

INTERVAL_S = 5.0


class Heartbeat:
    """Renews every agent's lease as long as this process lives and is awake."""

    def __init__(self, broadcast: Callable[[events.Command], None]) -> None:
        self._broadcast = broadcast
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._broadcast(events.Ping(time.time()))


class Clocks:
    """How far each node's clock is ahead, from the quickest answer to a ping so far."""

    def __init__(self) -> None:
        self._best: dict[str, float] = {}

    def measure(self, node: str, pong: events.Pong, received: float) -> float | None:
        """Returns by how many seconds a node is ahead, or None where that is known better.

        Args:
            node: the node.
            pong: its answer.
            received: this machine's wall clock when the answer came.
        """
        round_trip = received - pong.sent
        if round_trip < 0 or round_trip >= self._best.get(node, float("inf")):
            return None
        self._best[node] = round_trip
        return pong.clock - (pong.sent + received) / 2
