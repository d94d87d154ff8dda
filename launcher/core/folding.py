"""Equal lines of many workers as one: what is held back for a moment, and what it comes to. Pure.

Times are given in, in seconds of any clock that does not go back.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

# Workers that do the same do it within this time; a line waits so long for its likes.
HOLD_S = 0.2


class FoldedLine(NamedTuple):
    """A line, and every rank that wrote it."""

    stream: str
    text: bytes
    ranks: tuple[int, ...]


@dataclass
class _Group:
    """A line that waits for others like it."""

    number: int
    stream: str
    text: bytes
    since: float
    ranks: list[int] = field(default_factory=list)


class Folder:
    """Joins equal lines of different ranks; each rank's own lines keep their order.

    A rank's next line may join only a group behind the one that its last line went to, so that
    a traceback, line by line, folds into one traceback.

    >>> folder = Folder(world_size=2)
    >>> folder.feed(0, "stdout", b"loading", 0.0); folder.feed(0, "stdout", b"loss 1", 0.0)
    >>> folder.feed(1, "stdout", b"loading", 0.1); folder.feed(1, "stdout", b"loss 2", 0.1)
    >>> [(line.text, line.ranks) for line in folder.due(0.2)]
    [(b'loading', (0, 1)), (b'loss 1', (0,))]
    >>> [(line.text, line.ranks) for line in folder.rest()]
    [(b'loss 2', (1,))]
    """

    def __init__(self, world_size: int) -> None:
        """Takes how many ranks there are: a line that all of them wrote waits no longer."""
        self._world_size = world_size
        self._groups: deque[_Group] = deque()
        self._alike: dict[tuple[str, bytes], deque[_Group]] = {}
        self._next_of: dict[int, int] = {}
        self._count = 0

    def feed(self, rank: int, stream: str, text: bytes, now: float) -> None:
        """Takes a rank's next line."""
        alike = self._alike.setdefault((stream, text), deque())
        at = bisect.bisect_left(alike, self._next_of.get(rank, 0), key=lambda group: group.number)
        if at < len(alike):
            group = alike[at]
        else:
            group = _Group(self._count, stream, text, now)
            self._count += 1
            self._groups.append(group)
            alike.append(group)
        group.ranks.append(rank)
        self._next_of[rank] = group.number + 1

    def due(self, now: float) -> list[FoldedLine]:
        """Returns the lines that have waited long enough, in order."""
        found = []
        while self._groups:
            first = self._groups[0]
            if len(first.ranks) < self._world_size and now - first.since < HOLD_S:
                break
            found.append(self._take_first())
        return found

    def rest(self) -> list[FoldedLine]:
        """Returns every line that still waits."""
        return [self._take_first() for _ in range(len(self._groups))]

    def _take_first(self) -> FoldedLine:
        group = self._groups.popleft()
        key = (group.stream, group.text)
        alike = self._alike[key]
        alike.popleft()
        if not alike:
            del self._alike[key]
        return FoldedLine(group.stream, group.text, tuple(sorted(group.ranks)))
