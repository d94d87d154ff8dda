"""Tells nodes what they need not keep: what is on this disk, not only on its way there."""

from __future__ import annotations

import threading
from collections.abc import Callable

from launcher.collect.logs import LogCollector
from launcher.errors import StoreError
from launcher.wire import events

INTERVAL_S = 2.0


class LogRelease:
    """Syncs the logs now and then, from a thread of its own: the loop need not wait for a disk."""

    def __init__(
        self, logs: LogCollector, send_to: Callable[[str, events.Command], object]
    ) -> None:
        self._logs = logs
        self._send_to = send_to
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="log release", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; the logs may be closed then."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _go_on(self) -> None:
        told: dict[str, object] = {}
        while not self._stop.wait(INTERVAL_S):
            try:
                offsets = self._logs.sync()
            except StoreError:
                # Nothing more is given away; the loop meets the same disk with its next bytes.
                return
            for node, of_node in offsets.items():
                if told.get(node) != of_node:
                    told[node] = of_node
                    self._send_to(node, events.ReleaseOutput(events.pack_json(of_node)))
