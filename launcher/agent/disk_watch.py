"""The disk that workers write their output to, told of before and when it is full."""

import os
import time
from typing import Callable

from launcher.wire import events

# Looked at as often as this, seconds.
INTERVAL_S = 2.0
# With less than this free, what workers write next may be lost.
LOW_BYTES = 64 * 1024 * 1024


class DiskWatch:
    """Says once that a disk is about to be full, and again after it had room in between."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._looked_at = float("-inf")
        self._is_low = False

    def look(self, tell: Callable[[events.Event], None]) -> None:
        """Looks, but not at each call; tells what is new."""
        now = time.monotonic()
        if now - self._looked_at < INTERVAL_S:
            return
        self._looked_at = now
        free_bytes = _free_bytes(self._directory)
        was_low, self._is_low = self._is_low, free_bytes < LOW_BYTES
        if self._is_low and not was_low:
            tell(events.NodeTroubled("disk_full", _words(self._directory, free_bytes)))


def _free_bytes(directory: str) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _words(directory: str, free_bytes: int) -> str:
    return (
        "the disk of %s has %d MB left: what workers write there is lost once it is full; "
        "make room there, or bound their logs with `logs: {max_bytes: …}` in the manifest"
        % (directory, free_bytes // 1000000)
    )


def cannot_release(problem: OSError) -> events.NodeTroubled:
    """Returns what is told where a file system cannot give back the disk of old output."""
    told = "logs.max_bytes has no effect there, the whole logs stay until the end: %s"
    return events.NodeTroubled("logs_not_bounded", told % (problem.strerror or problem))
