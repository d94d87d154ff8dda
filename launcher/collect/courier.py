"""The thread that brings checkpoints here: hashing and a slow disk hold up nobody else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from launcher.collect.checkpoints import CheckpointCollector, NotStored, Outcome
from launcher.wire import events

# A bounded rate is looked at this often.
_TICK_S = 0.05

Job = Callable[[], list[Outcome] | None]


class Courier:
    """A collector in a thread of its own.

    What happens is told from the session's loop and never waits; what comes of it is called for
    when `wake` was called, from the courier's thread.
    """

    def __init__(self, collector: CheckpointCollector, wake: Callable[[], None]) -> None:
        """Starts the thread."""
        self._collector = collector
        self._wake = wake
        self._jobs: queue.SimpleQueue[tuple[Job, bool] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._announced = 0
        self._arriving = 0
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """How much of what was published or told is not here yet, nor given up."""
        with self._lock:
            return self._announced + self._arriving

    def outcomes(self) -> list[Outcome]:
        """Returns what came of collecting since the last call."""
        found = []
        while not self._outcomes.empty():
            found.append(self._outcomes.get())
        return found

    def incomplete(self) -> list[NotStored]:
        """Returns the steps of which only some ranks' parts were told; once it is closed."""
        return self._collector.incomplete()

    def on_published(self, node: str, event: events.CheckpointPublished) -> None:
        """A worker published a checkpoint."""
        with self._lock:
            self._announced += 1
        self._jobs.put((lambda: self._collector.on_published(node, event), True))

    def on_settled(self, node: str, event: events.PathSettled) -> None:
        """A path that `--collect` names is quiet."""
        with self._lock:
            self._announced += 1
        self._jobs.put((lambda: self._collector.on_settled(node, event), True))

    def on_chunk(self, event: events.FileChunk) -> None:
        """A piece of a file came."""
        self._jobs.put((lambda: self._collector.on_chunk(event), False))

    def on_ended(self, event: events.FileEnded) -> None:
        """A file's last piece came, or there is none."""
        self._jobs.put((lambda: self._collector.on_ended(event), False))

    def on_node_absent(self, node: str) -> None:
        """A node's link broke, and may be made anew."""
        self._jobs.put((lambda: self._collector.on_node_absent(node), False))

    def on_node_present(self, node: str) -> None:
        """A node's link was made anew."""
        self._jobs.put((lambda: self._collector.on_node_present(node), False))

    def on_node_lost(self, node: str) -> None:
        """Nothing more comes from a node."""
        self._jobs.put((lambda: self._collector.on_node_lost(node), False))

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_TICK_S)
            except queue.Empty:
                self._collector.tick()
                continue
            if job is None:
                return
            self._do(*job)

    def _do(self, act: Job, announces: bool) -> None:
        outcomes = act() or []
        for outcome in outcomes:
            self._outcomes.put(outcome)
        with self._lock:
            before = self._announced + self._arriving
            self._announced -= announces
            self._arriving = self._collector.pending
            changed = before != self._announced + self._arriving
        if outcomes or changed:
            self._wake()

    def close(self) -> None:
        """Ends the thread and lets go of every file; what is not whole is removed."""
        self._jobs.put(None)
        self._thread.join()
        self._collector.close()
