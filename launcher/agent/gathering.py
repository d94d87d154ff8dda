"""What a job writes into its working directory and `--collect` names: told once it is quiet.

Programs that know nothing of flowlaunch write when they like. A file or directory is taken when no
size and no time in it has changed for a while; what `flow.save` writes also only when it is whole.
After the workers' end nothing changes any more, and what is whole is taken at once.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import glob
import os
import queue
import stat
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from launcher.agent.files import sha256_of
from launcher.agent.savings import torn
from launcher.wire import events
from launcher.wire.order import NodeOrder

# What has not changed for so long is taken for finished.
QUIET_S = 2.0
SCAN_EVERY_S = 1.0
MAX_FILES = 100_000

# A file's path in the working directory, its size and its time of change.
Trace = Tuple[str, int, int]
Emit = Callable[[events.Event], None]


class Finding(NamedTuple):
    """One path that a pattern names: a file, or a directory with all that is in it."""

    path: str
    traces: Tuple[Trace, ...]


class Gatherer:
    """Looks for what the patterns name, in a thread of its own for as long as a look takes."""

    def __init__(self, folder: str, ordered: NodeOrder, built_at: float) -> None:
        """Prepares it.

        Args:
            folder: the job's folder.
            ordered: what was ordered of this node.
            built_at: when the folder was built, by this machine's clock.
        """
        self._folder = folder
        self._workdir = os.path.normpath(os.path.join(folder, ordered.workdir))
        self._patterns = ordered.collect
        self._shipped = {file.path for file in ordered.files}
        self._built_ns = int(built_at * 1e9)
        self._seen: Dict[str, Tuple[Tuple[Trace, ...], float]] = {}
        self._told: Dict[str, Tuple[Trace, ...]] = {}
        self._found: "queue.Queue[events.Event]" = queue.Queue()
        self._thread: Optional[threading.Thread] = None
        self._next_at = 0.0
        self._stop = threading.Event()
        self._is_last_begun = False

    @property
    def is_done(self) -> bool:
        """Whether the look after the workers' end is over and everything is told."""
        return self._is_last_begun and self._thread is None and self._found.empty()

    def tick(self, emit: Emit, *, is_working: bool) -> None:
        """Tells what a look has found; begins the next one where it is time."""
        while not self._found.empty():
            emit(self._found.get())
        if self._thread is not None and not self._thread.is_alive():
            self._thread.join()
            self._thread = None
        if self._thread is not None or self._is_last_begun:
            return
        if not is_working or time.monotonic() >= self._next_at:
            self._is_last_begun = not is_working
            self._next_at = time.monotonic() + SCAN_EVERY_S
            self._thread = threading.Thread(
                target=self._look, args=(not is_working,), name="gatherer", daemon=True
            )
            self._thread.start()

    def pause(self) -> None:
        """Ends a look that is under way: no thread may live when workers are started."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._stop.clear()
        self._is_last_begun = False

    def told(self) -> "set[Trace]":
        """Returns the files that were told, by their paths in the job's folder."""
        return {
            (self._in_folder(path), size, time_ns)
            for traces in self._told.values()
            for path, size, time_ns in traces
        }

    def _in_folder(self, path: str) -> str:
        return os.path.relpath(os.path.join(self._workdir, path), self._folder)

    def _is_shipped(self, trace: Trace) -> bool:
        """Whether the launcher sent a file as it is: it needs no way back."""
        return self._in_folder(trace[0]) in self._shipped and trace[2] <= self._built_ns

    def _look(self, is_last: bool) -> None:
        for finding in self._findings():
            if self._stop.is_set():
                return
            try:
                self._consider(finding, is_last)
            except OSError:
                continue  # it went, or changed, while it was read: the next look sees to it

    def _findings(self) -> List[Finding]:
        paths: "set[str]" = set()
        for pattern in self._patterns:
            whole = os.path.join(glob.escape(self._workdir), pattern)
            paths.update(os.path.normpath(path) for path in glob.glob(whole, recursive=True))
        outer = [path for path in sorted(paths) if not _is_inside_one(path, paths)]
        return [Finding(os.path.relpath(path, self._workdir), self._traces(path)) for path in outer]

    def _traces(self, top: str) -> Tuple[Trace, ...]:
        found = []
        for path in _files_below(top):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            trace = (os.path.relpath(path, self._workdir), status.st_size, status.st_mtime_ns)
            if stat.S_ISREG(status.st_mode) and not self._is_shipped(trace):
                found.append(trace)
        return tuple(sorted(found))

    def _consider(self, finding: Finding, is_last: bool) -> None:
        if not finding.traces or self._told.get(finding.path) == finding.traces:
            return
        before, since = self._seen.get(finding.path, ((), 0.0))
        now = time.monotonic()
        if before != finding.traces:
            self._seen[finding.path] = (finding.traces, now)
            since = now
        if not is_last and now - since < QUIET_S:
            return
        problem = torn(self._workdir, [trace[0] for trace in finding.traces])
        if len(finding.traces) > MAX_FILES:
            problem = "it has more than %d files" % MAX_FILES
        if problem and is_last:
            self._found.put(events.PathSettled(finding.path, events.pack_json({"error": problem})))
        if not problem:
            self._tell(finding)

    def _tell(self, finding: Finding) -> None:
        files = []
        for path, size, _ in finding.traces:
            sha256 = sha256_of(os.path.join(self._workdir, path), self._stop.is_set)
            files.append({"path": path, "bytes": size, "sha256": sha256})
        if self._traces(os.path.join(self._workdir, finding.path)) == finding.traces:
            self._told[finding.path] = finding.traces
            data = events.pack_json({"files": files})
            self._found.put(events.PathSettled(finding.path, data))


def _is_inside_one(path: str, paths: "set[str]") -> bool:
    parent = os.path.dirname(path)
    while parent not in ("", "/"):
        if parent in paths:
            return True
        parent = os.path.dirname(parent)
    return False


def _files_below(top: str) -> List[str]:
    if not os.path.isdir(top) or os.path.islink(top):
        return [top]
    return [os.path.join(place, name) for place, _, names in os.walk(top) for name in names]
