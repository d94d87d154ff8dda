"""Notices what a test leaves behind: threads, file descriptors, child processes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.processes import command_of

_GRACE_S = 3.0
# pytest-timeout's own watchdog; it may start or end in the middle.
_FOREIGN_THREADS = ("pytest_timeout",)


@dataclass(frozen=True)
class Held:
    """What this process holds at one moment, each with words for a message."""

    threads: dict[int, str]
    files: dict[int, str]
    children: dict[int, str]

    def beyond(self, before: Held) -> list[str]:
        """Returns a line for each thing that was not there before."""
        # A number names another file once it was closed and opened again; a process only
        # changes its title.
        files = {fd: name for fd, name in self.files.items() if before.files.get(fd) != name}
        kinds = (
            ("thread", _without(self.threads, before.threads)),
            ("file descriptor", files),
            ("child process", _without(self.children, before.children)),
        )
        return [f"{kind} {key}: {words}" for kind, new in kinds for key, words in new.items()]


def _without(now: dict[int, str], then: dict[int, str]) -> dict[int, str]:
    return {key: words for key, words in now.items() if key not in then}


def held_now() -> Held:
    """Looks at what this process holds."""
    return Held(_threads(), _files(), _children())


def _threads() -> dict[int, str]:
    return {
        id(thread): thread.name
        for thread in threading.enumerate()
        if not thread.name.startswith(_FOREIGN_THREADS)
    }


def _files() -> dict[int, str]:
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found[int(name)] = str(Path(f"/proc/self/fd/{name}").readlink())
        except OSError:
            continue
    return found


def _children() -> dict[int, str]:
    found: dict[int, str] = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            pids = (task / "children").read_text().split()
            found |= {int(pid): command_of(int(pid)) or "ended, not waited for" for pid in pids}
    return found


def assert_nothing_left(before: Held, grace_s: float = _GRACE_S) -> None:
    """Fails where more is held than before; what is just ending gets a moment."""
    try:
        wait_until(lambda: not held_now().beyond(before), "the test's own clean-up", grace_s)
    except AssertionError:
        left = held_now().beyond(before)
        if left:
            pytest.fail("the test left behind:\n  " + "\n  ".join(left))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Stands around every test. Session fixtures are set up before it, and so not counted."""
    before = held_now()
    yield
    assert_nothing_left(before)
