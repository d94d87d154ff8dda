"""How busy this machine is, from one look to the next.

    cpu                                 share of all cores that was busy, 0..1
    load                                processes that want to run, mean of the last minute
    memory_bytes, memory_used_bytes     of the machine; used is what nobody else could have
    read_bytes_per_s, write_bytes_per_s all disks
    received_bytes_per_s, sent_bytes_per_s  all network interfaces but the loopback
    disk_free_bytes                     where the run is kept

What cannot be learnt is left out.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import os
import re
from typing import Any, Dict, Iterator, NamedTuple

_SECTOR_BYTES = 512
# Whole disks: what is written to a part of one counts for it once more.
_DISKS = re.compile(r"(?:[shv]d[a-z]+|xvd[a-z]+|nvme\d+n\d+|mmcblk\d+)$")


class Counts(NamedTuple):
    """Counters of the kernel that only grow; a share or a speed lies between two of them."""

    busy: float = 0.0
    total: float = 0.0
    read: float = 0.0
    written: float = 0.0
    received: float = 0.0
    sent: float = 0.0


def counts(proc: str = "/proc") -> Counts:
    """Reads the counters; those that cannot be read are 0."""
    cpu = next((line.split() for line in _lines(proc + "/stat") if line.startswith("cpu ")), [])
    # user nice system idle iowait irq softirq steal; guests are in user already
    times = [float(word) for word in cpu[1:9]]
    idle = sum(times[3:5])
    disks = [line.split() for line in _lines(proc + "/diskstats")]
    disks = [words for words in disks if len(words) > 9 and _DISKS.match(words[2])]
    nets = [line.partition(":") for line in _lines(proc + "/net/dev") if ":" in line]
    flows = [values.split() for name, _, values in nets if name.strip() != "lo"]
    return Counts(
        sum(times) - idle,
        sum(times),
        sum(float(words[5]) for words in disks) * _SECTOR_BYTES,
        sum(float(words[9]) for words in disks) * _SECTOR_BYTES,
        sum(float(words[0]) for words in flows),
        sum(float(words[8]) for words in flows),
    )


def between(before: Counts, after: Counts, seconds: float) -> Dict[str, float]:
    """Returns what two looks say of the time between them.

    >>> found = between(Counts(), Counts(busy=3, total=4, sent=100), 2.0)
    >>> found["cpu"], found["sent_bytes_per_s"]
    (0.75, 50.0)
    """
    found = {}
    if after.total > before.total:
        found["cpu"] = round((after.busy - before.busy) / (after.total - before.total), 4)
    for key, now, then in (
        ("read_bytes_per_s", after.read, before.read),
        ("write_bytes_per_s", after.written, before.written),
        ("received_bytes_per_s", after.received, before.received),
        ("sent_bytes_per_s", after.sent, before.sent),
    ):
        # An interface that went away takes its count along.
        if seconds > 0 and now >= then:
            found[key] = round((now - then) / seconds, 1)
    return found


def standing(run_dir: str, proc: str = "/proc") -> Dict[str, Any]:
    """Returns what one look is enough for."""
    found: Dict[str, Any] = {}
    memory = dict(_memory(proc))
    if "MemTotal" in memory and "MemAvailable" in memory:
        found["memory_bytes"] = memory["MemTotal"]
        found["memory_used_bytes"] = memory["MemTotal"] - memory["MemAvailable"]
    try:
        found["load"] = round(os.getloadavg()[0], 2)
        disk = os.statvfs(run_dir)
        found["disk_free_bytes"] = disk.f_bavail * disk.f_frsize
    except OSError:
        pass  # left out
    return found


def _memory(proc: str) -> "Iterator[tuple[str, int]]":
    for line in _lines(proc + "/meminfo"):
        name, _, value = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            yield name, int(value.split()[0]) * 1024


def _lines(path: str) -> "list[str]":
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
