"""What a node knows of a worker's end, read from what kernels really write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.agent import diagnosis

OOM = (
    "4,918,2041,-;Memory cgroup out of memory: Killed process 812 (python3) total-vm:3145728kB, "
    "anon-rss:2097152kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4096kB oom_score_adj:0\n"
)
XID = "4,919,2042,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=812, GPU has fallen off the bus.\n"
FAULT = "6,920,2043,-;python3[812]: segfault at 0 ip 00007f error 4 in liboneflow.so\n"
OTHER = "6,921,2044,-;eth0: link becomes ready\n SUBSYSTEM=net\n"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A log that gives one record a read, as the kernel's does."""
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    monkeypatch.setattr(diagnosis, "_kernel_log", lambda: os.dup(theirs.fileno()))
    with ours, theirs:
        yield ours.fileno()


def watch() -> diagnosis.NodeWatch:
    return diagnosis.NodeWatch(sys.executable, [])


def test_the_kernels_own_words_are_told(kernel: int) -> None:
    node = watch()
    for record in (OTHER, OOM, XID, FAULT):
        os.write(kernel, record.encode())
    facts = node.facts(812)
    assert facts == [
        "out of memory: the kernel ended process 812 (python3) at 2.1 GB",
        "python3[812]: segfault at 0 ip 00007f error 4 in liboneflow.so",
        "the GPU's driver reports: NVRM: Xid (PCI:0000:3b:00): 79, pid=812, GPU has fallen off the "
        "bus.",
    ]
    assert node.facts(812) == [], "each record is told of once"
    node.close()


def test_another_programs_fault_is_not_this_workers(kernel: int) -> None:
    node = watch()
    os.write(kernel, FAULT.encode())
    assert node.facts(813) == []
    node.close()


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill {}\n", "memory.max"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
         "memory.limit_in_bytes"),
    ],
)  # fmt: skip
def test_the_control_groups_counter_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str, limit: str
) -> None:
    counter = tmp_path / name
    counter.write_text(text.format(4))
    (tmp_path / limit).write_text("512000000\n")
    monkeypatch.setattr(diagnosis, "_kernel_log", lambda: None)
    monkeypatch.setattr(diagnosis, "_oom_counter", lambda: str(counter))
    node = watch()
    assert node.facts(1) == []
    counter.write_text(text.format(5))
    assert node.facts(1) == [
        "out of memory: the kernel ended 1 of the processes here, whose limit is 512 MB"
    ]


def test_a_python_that_is_gone_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("")
    node = diagnosis.NodeWatch(str(python), [])
    python.unlink()
    assert f"its Python is gone: {python}" in node.facts(1)
    node.close()


def test_a_node_that_tells_nothing_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_read", lambda path: "")
    monkeypatch.setattr(diagnosis, "_kernel_log", lambda: None)
    node = diagnosis.NodeWatch(sys.executable, ["/nonexistent"])
    assert node.facts(1) == []
    node.close()
