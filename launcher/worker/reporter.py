"""What a worker says of itself, on its way into the file that the agent reads.

Said at a pace that a person could follow, every report becomes a line at once. Said faster, it is
held back for a moment: of such a window the last report is kept, and those with the smallest and
the largest value of each name and its first that is not finite, each as it was said. So nothing
that happened is smoothed away, and a job that reports as fast as it can costs the launcher little.

The last report of a window that is still open stands in a file beside, written anew each time. The
kernel keeps it however the process ends, and the agent then adds it to the rest.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import atexit
import json
import os
import struct
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from launcher.wire.report import LAST_MARK, Report, line_of, pack_last

# Lines that one worker may write in a second, those of all workers, and what it may save up.
WORKER_LINES_PER_S = 50.0
ALL_LINES_PER_S = 4000.0
LEAST_LINES_PER_S = 4.0
SAVED_LINES = 100.0
# So long reports are held back at least, and, however many lines a window comes to, at most.
WINDOW_S = 0.5
LONGEST_WINDOW_S = 5.0

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_REPLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class Window:
    """The reports that are held back, of which only the telling ones are kept."""

    def __init__(self, began: float) -> None:
        self.began = began
        self._lows: Dict[str, Tuple[float, Report]] = {}
        self._highs: Dict[str, Tuple[float, Report]] = {}
        self._odd: Dict[str, Report] = {}
        self._last: Optional[Report] = None

    def add(self, report: Report) -> None:
        """Takes a report in."""
        self._last = report
        lows, highs = self._lows, self._highs
        for name, value in report[3].items():
            low = lows.get(name)
            if value - value != 0:  # NaN or an infinity
                self._odd.setdefault(name, report)
            elif low is None:
                lows[name] = highs[name] = (value, report)
            elif value < low[0]:
                lows[name] = (value, report)
            elif value > highs[name][0]:
                highs[name] = (value, report)

    def telling(self) -> List[Report]:
        """Returns the reports to keep, in the order in which they were said."""
        kept = {id(report): report for report in self._odd.values()}
        for extremes in (self._lows, self._highs):
            kept.update((id(report), report) for _, report in extremes.values())
        kept.pop(id(self._last), None)
        # The newest comes last, whatever happened to the clock meanwhile.
        last = [self._last] if self._last is not None else []
        return sorted(kept.values(), key=lambda report: report.time) + last


class Reporter:
    """Writes the reports of one process to one file; any thread may use it."""

    def __init__(self, path: str, world_size: int) -> None:
        """Opens nothing yet.

        Args:
            path: the file, shared with the worker's other processes.
            world_size: how many workers share what the launcher can take.
        """
        self._path = path
        self._per_s = max(
            LEAST_LINES_PER_S, min(WORKER_LINES_PER_S, ALL_LINES_PER_S / max(world_size, 1))
        )
        self._is_broken = False
        self.begin()

    def begin(self) -> None:
        """Starts anew, also in a forked child: what was held back is its parent's to write."""
        # Reentrant: a job's signal handler may report while it interrupts a report.
        self._lock = threading.RLock()
        self._tokens, self._counted_at = SAVED_LINES, time.monotonic()
        self._window: Optional[Window] = None
        self._last_fd = -1
        self._last_id = (0, 0)
        self._holds, self._is_closed = threading.Event(), threading.Event()
        self._thread: Optional[threading.Thread] = None

    def report(self, report: Report) -> None:
        """Says how the job stands."""
        with self._lock:
            now = time.monotonic()
            if self._window is None:
                self._refill(now)
                if self._tokens >= 1.0:
                    self._tokens -= 1.0
                    self._append(line_of(report))
                    return
                self._window = Window(now)
                self._wake()
            self._window.add(report)
            if not self._flush_if_due(self._window, now):
                self._keep_last(report)

    def write(self, fields: Dict[str, Any]) -> None:
        """Writes what must never be held back."""
        with self._lock:
            self._append(json.dumps(fields) + "\n")

    def flush(self) -> None:
        """Writes what is held back."""
        with self._lock:
            window, self._window = self._window, None
            if window is None:
                return
            telling = window.telling()
            self._tokens -= len(telling)
            self._append("".join(map(line_of, telling)))
            self._forget_last()

    def close(self) -> None:
        """Writes what is held back and lets go of everything; more may be said all the same."""
        self.flush()
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._is_closed.set()
                self._holds.set()
            if self._last_fd >= 0:
                os.close(self._last_file())
                self._last_fd = -1
        if thread is not None:
            thread.join()

    def _flush_if_due(self, window: Window, now: float) -> bool:
        if now - window.began < WINDOW_S:
            return False
        self._refill(now)
        # The last window may have come to more lines than its time was worth.
        if self._tokens < 0.0 and now - window.began < LONGEST_WINDOW_S:
            return False
        self.flush()
        return True

    def _refill(self, now: float) -> None:
        earned = (now - self._counted_at) * self._per_s
        self._tokens, self._counted_at = min(self._tokens + earned, SAVED_LINES), now

    def _wake(self) -> None:
        """Sees to it that the window ends even if no further report comes."""
        if self._thread is None:
            self._holds, self._is_closed = threading.Event(), threading.Event()
            events = (self._holds, self._is_closed)
            self._thread = threading.Thread(
                target=self._end_windows, args=events, name="reports", daemon=True
            )
            self._thread.start()
        self._holds.set()

    def _end_windows(self, holds: threading.Event, is_closed: threading.Event) -> None:
        while holds.wait() and not is_closed.wait(WINDOW_S):
            with self._lock:
                if self._window is not None:
                    self._flush_if_due(self._window, time.monotonic())
                if self._window is None:
                    holds.clear()

    def _append(self, text: str) -> None:
        """One write to a file opened for appending: whole lines, from any thread or process."""
        if self._is_broken:
            return
        try:
            fd = os.open(self._path, _APPEND, 0o600)
            try:
                os.write(fd, text.encode("ascii"))
            finally:
                os.close(fd)
        except OSError as error:
            self._give_up(error)

    def _keep_last(self, report: Report) -> None:
        """Puts the newest report where the agent finds it if this process is gone."""
        if self._is_broken:
            return
        try:
            data = pack_last(report)
        except (struct.error, OverflowError):
            self.flush()
            return
        try:
            os.pwrite(self._last_file(), data, 0)
        except OSError as error:
            self._give_up(error)

    def _forget_last(self) -> None:
        if self._last_fd >= 0 and not self._is_broken:
            try:
                os.ftruncate(self._last_file(), 0)
            except OSError as error:
                self._give_up(error)

    def _last_file(self) -> int:
        """Returns the descriptor of the file beside.

        It stays open, and a job that closes every descriptor may then open a file of its own
        under the same number: whether it is ours still is asked each time.
        """
        if self._last_fd >= 0:
            try:
                found = os.fstat(self._last_fd)
                if (found.st_dev, found.st_ino) == self._last_id:
                    return self._last_fd
            except OSError:
                pass  # closed: opened anew
        path = "%s%s%d" % (self._path, LAST_MARK, os.getpid())
        self._last_fd = os.open(path, _REPLACE, 0o600)
        found = os.fstat(self._last_fd)
        self._last_id = (found.st_dev, found.st_ino)
        return self._last_fd

    def _give_up(self, error: OSError) -> None:
        # A full disk must not end a training that does not need these lines.
        self._is_broken = True
        sys.stderr.write("flowlaunch: no more reports from this worker: %s\n" % error)


_REPORTERS: Dict[str, Reporter] = {}


def reporter_to(path: str, world_size: int) -> Reporter:
    """Returns the one reporter of this process that writes to a file."""
    if path not in _REPORTERS:
        _REPORTERS[path] = Reporter(path, world_size)
    return _REPORTERS[path]


@atexit.register
def _close_all() -> None:
    for reporter in _REPORTERS.values():
        reporter.close()


def _begin_all() -> None:
    for reporter in _REPORTERS.values():
        reporter.begin()


os.register_at_fork(after_in_child=_begin_all)
