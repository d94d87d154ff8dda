"""Looking at processes through /proc."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from tests.support.deadline import wait_until


def parents() -> dict[int, int]:
    """Returns each living process's parent, zombies left out."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def descendants(pid: int) -> set[int]:
    """Returns the living processes below one, itself not among them."""
    tree, found, edge = parents(), set[int](), {pid}
    while edge:
        edge = {child for child, parent in tree.items() if parent in edge}
        found |= edge
    return found


def command_of(pid: int) -> str:
    """Returns a process's command line, "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def end_tree(pid: int) -> None:
    """Kills what is below a process and the process itself; the caller reaps its own child."""
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def wait_gone(pid: int, limit_s: float = 5.0) -> None:
    """Waits until a process is gone (a zombie counts as gone)."""
    wait_until(lambda: pid not in parents(), f"the end of process {pid}", limit_s)


def processes_with(word: str) -> list[str]:
    """Returns id and command of the living processes whose environment or arguments hold a word."""
    found = []
    for pid in parents():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        command = command_of(pid)
        if word.encode() in environment or word in command:
            found.append(f"{pid} {command[:120]}")
    return found
