"""Measures this machine while workers run on it, and tells whoever follows.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import collections
import time
from typing import Any, Deque, Dict

from launcher.agent import usage
from launcher.agent.conversation import Conversation
from launcher.agent.nvml import GpuWatch
from launcher.wire import events

INTERVAL_S = 2.0
# While nobody follows, the measurements of so long a time are kept for whoever comes.
KEPT_S = 3600.0


class Meter:
    """One machine, from its workers' start to their end."""

    def __init__(self, run_dir: str) -> None:
        """Takes the first look; `run_dir` lies on the disk whose room is of interest."""
        self._run_dir = run_dir
        self._counts, self._looked_at = usage.counts(), time.monotonic()
        self._gpus = GpuWatch(INTERVAL_S)
        self._waiting: Deque[events.NodeMeasured] = collections.deque(
            maxlen=int(KEPT_S / INTERVAL_S)
        )

    def tick(self, launcher: Conversation, is_working: bool) -> None:
        """Measures when it is time and workers run, and sends what is waiting."""
        if is_working and time.monotonic() - self._looked_at >= INTERVAL_S:
            self._measure()
        while self._waiting and launcher.follows and launcher.has_room:
            launcher.emit(self._waiting.popleft())

    def _measure(self) -> None:
        before, then = self._counts, self._looked_at
        self._counts, self._looked_at = usage.counts(), time.monotonic()
        found: Dict[str, Any] = dict(usage.between(before, self._counts, self._looked_at - then))
        found.update(usage.standing(self._run_dir))
        if self._gpus.newest:
            found["gpus"] = self._gpus.newest
        self._waiting.append(events.NodeMeasured(time.time(), events.pack_json(found)))
