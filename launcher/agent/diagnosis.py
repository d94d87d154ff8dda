"""What the node knows of a worker's end: out of memory, a full disk, a broken GPU, a lost Python.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import os
import re
from typing import Iterator, List, Optional

# Where jobs and libraries write besides their own directory.
WRITABLE = ("/tmp", "/dev/shm")  # noqa: S108 - looked at, not written
_FULL_BYTES = 4 * 1024 * 1024
_RECORD_BYTES = 8192
_KILLED = re.compile(r"[Kk]illed process (\d+)[, ]+\(?([^),]+)\)?(?:.*?anon-rss:(\d+)kB)?")
_XID = re.compile(r"NVRM: Xid.*")
_FAULT = re.compile(r"\S+\[(\d+)\](?:: segfault| trap| general protection).*")
# Of each kind, so many lines; a node under pressure writes hundreds.
_MAX_LINES = 3


class NodeWatch:
    """Remembers how the node stood when the workers were started, and says what came since."""

    def __init__(self, python: str, places: List[str]) -> None:
        """Looks at the node.

        Args:
            python: the workers' interpreter.
            places: where workers write.
        """
        self._python = python
        self._places = places
        self._log = _kernel_log()
        self._counter = _oom_counter()
        self._kills = _oom_kills(self._counter)

    def facts(self, pid: int) -> List[str]:
        """Returns what the node knows of the end of a worker, a sentence each."""
        found = list(self._memory_facts(pid))
        for place in self._places:
            found += _disk_facts(place)
        if not os.path.exists(self._python):
            found.append("its Python is gone: %s" % self._python)
        return list(dict.fromkeys(found))

    def _memory_facts(self, pid: int) -> Iterator[str]:
        lines = list(self._new_lines())
        killed = [match for match in map(_KILLED.search, lines) if match]
        for match in killed[:_MAX_LINES]:
            size = " at %.1f GB" % (int(match.group(3)) / 1e6) if match.group(3) else ""
            yield "out of memory: the kernel ended process %s (%s)%s" % (
                match.group(1), match.group(2), size,
            )  # fmt: skip
        kills = _oom_kills(self._counter)
        if kills > self._kills and not killed:
            yield "out of memory: the kernel ended %d of the processes here%s" % (
                kills - self._kills, _limit_words(self._counter),
            )  # fmt: skip
        self._kills = kills
        for line in lines:
            fault = _FAULT.search(line)
            if fault and fault.group(1) == str(pid):
                yield fault.group()
        broken = [match.group() for match in map(_XID.search, lines) if match]
        for line in broken[:_MAX_LINES]:
            yield "the GPU's driver reports: %s" % line

    def _new_lines(self) -> Iterator[str]:
        """Yields what the kernel has logged since the last look, nothing where it may not."""
        while self._log is not None:
            try:
                record = os.read(self._log, _RECORD_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # records were overwritten before they were read; those after are there
            except OSError:
                return
            if not record:
                return
            yield record.partition(b";")[2].partition(b"\n")[0].decode("utf-8", "replace")

    def close(self) -> None:
        """Lets go of the kernel's log."""
        if self._log is not None:
            os.close(self._log)
            self._log = None


def _kernel_log() -> Optional[int]:
    """Opens the kernel's log at its end; None where this user may not read it."""
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.lseek(log, 0, os.SEEK_END)
    except OSError:
        os.close(log)
        return None
    return log


def _oom_counter() -> str:
    """Returns the file in which this process's control group counts, "" where there is none."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            places = ["/sys/fs/cgroup%s/memory.events" % path.rstrip("/")]
        elif "memory" in controllers.split(","):
            places = ["/sys/fs/cgroup/memory%s/memory.oom_control" % path.rstrip("/")]
        else:
            continue
        for place in places:
            if "oom_kill " in _read(place):
                return place
    return ""


def _oom_kills(counter: str) -> int:
    for line in _read(counter).splitlines():
        word, _, number = line.partition(" ")
        if word == "oom_kill" and number.isdigit():
            return int(number)
    return 0


def _limit_words(counter: str) -> str:
    """Returns the limit of the control group in words, "" where it has none of its own."""
    top = os.path.dirname(counter)
    for name in ("memory.max", "memory.limit_in_bytes"):
        limit = _read(os.path.join(top, name)).strip()
        if limit.isdigit() and int(limit) < 1 << 60:
            return ", whose limit is %d MB" % (int(limit) // 1000000)
    return ""


def _disk_facts(place: str) -> Iterator[str]:
    try:
        status = os.statvfs(place)
    except OSError:
        return
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and free < _FULL_BYTES:
        yield "the disk of %s is full: %d kB are free" % (place, free // 1000)
    elif status.f_files and status.f_favail == 0:
        yield "the disk of %s has no room for another file (inodes)" % place


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
