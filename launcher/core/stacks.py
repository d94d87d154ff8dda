"""The workers' Python stacks: read, folded over ranks, the odd ones named. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# faulthandler's words, and py-spy's.
_THREAD = re.compile(r"^(?:Current thread|Thread) ")
_FRAME = re.compile(r'^\s+File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<name>.+)$')
_SPY_FRAME = re.compile(r"^\s+(?P<name>\S.*) \((?P<file>[^()]*):(?P<line>\d+)\)$")
# Frames of ours, below the job's first.
_OWN = re.compile(r"(?:^|/)(?:bootstrap\.py|runpy\.py)$|^<frozen runpy>$|^runpy$")

Stack = tuple[str, ...]


class Group(NamedTuple):
    """Ranks that stand at the same place."""

    ranks: tuple[int, ...]
    stack: Stack


def parse(text: str) -> Stack:
    r"""Returns the frames of a program's main thread, the innermost first.

    >>> parse('Current thread 0x1 (most recent call first):\n  File "/w/job.py", line 3 in step\n')
    ('job.py:3 step',)
    """
    threads: list[list[str]] = []
    main: list[str] | None = None
    for line in text.splitlines():
        if _THREAD.match(line):
            threads.append([])
            if '"MainThread"' in line:
                main = threads[-1]
            continue
        frame = _FRAME.match(line) or _SPY_FRAME.match(line)
        if frame is not None and threads and not _OWN.search(frame["file"]):
            place = frame["file"].rpartition("/")[2]
            threads[-1].append(f"{place}:{frame['line']} {frame['name']}")
    # faulthandler lists the oldest thread last, which is the main one.
    found = main if main is not None else (threads[-1] if threads else [])
    return tuple(found)


def fold(stacks: Mapping[int, Stack]) -> list[Group]:
    """Returns the ranks by where they stand, the most first.

    >>> [group.ranks for group in fold({0: ("a",), 1: ("b",), 2: ("a",)})]
    [(0, 2), (1,)]
    """
    alike: dict[Stack, list[int]] = {}
    for rank, stack in sorted(stacks.items()):
        alike.setdefault(stack, []).append(rank)
    groups = [Group(tuple(ranks), stack) for stack, ranks in alike.items()]
    return sorted(groups, key=lambda group: (-len(group.ranks), group.ranks))


def odd_ranks(groups: Iterable[Group]) -> tuple[int, ...]:
    """Returns the ranks that stand elsewhere than most; none where most stand nowhere.

    >>> odd_ranks([Group((0, 2), ("a",)), Group((1,), ("b",))])
    (1,)
    """
    most, *others = [*groups, Group((), ())]
    apart = sorted(rank for group in others for rank in group.ranks)
    return tuple(apart) if len(most.ranks) > len(apart) else ()
