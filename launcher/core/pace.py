"""How fast each rank steps, and who is slower than the others. Pure: times are given in.

A rank's step time is taken over the last minute, from the steps and times of its reports. In
synchronous training all ranks take the time of the slowest; a job that reports the time of its own
work in a step, as ``step_s``, is compared by that instead.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

WINDOW_S = 60.0
# The window moves on in steps of this length.
LOOK_S = 5.0
# So much slower than the median, for a whole window, is named.
FACTOR = 1.2
OWN_TIME = "step_s"


@dataclass(frozen=True)
class Pace:
    """How the ranks step now. `step_s` has each rank's step time in seconds."""

    median_s: float
    slowest: int
    step_s: Mapping[int, float]

    @property
    def slowest_factor(self) -> float:
        """How many times the median's time the slowest rank takes."""
        return self.step_s[self.slowest] / self.median_s


@dataclass(frozen=True)
class FellBehind:
    """A rank was slower than the median by more than 20 % for a minute."""

    rank: int
    step_s: float
    median_s: float


@dataclass(frozen=True)
class CaughtUp:
    """A rank that had fallen behind is not slower any more."""

    rank: int


Finding = FellBehind | CaughtUp


@dataclass
class _Look:
    """What a rank reported between two looks."""

    steps: int = 0
    seconds: float = 0.0
    own_s: float = 0.0
    own_count: int = 0


@dataclass
class _Rank:
    """One rank: its newest report, and what it did in the window."""

    step: int
    time: float
    came_at: float
    stride: int = 1
    now: _Look = field(default_factory=_Look)
    looks: deque[_Look] = field(default_factory=lambda: deque(maxlen=round(WINDOW_S / LOOK_S)))

    def step_s(self, now: float) -> float | None:
        """Returns its step time over the window, None where it is not known yet."""
        own = sum(look.own_count for look in self.looks)
        if own:
            return sum(look.own_s for look in self.looks) / own
        steps = sum(look.steps for look in self.looks)
        seconds = sum(look.seconds for look in self.looks)
        if not steps:
            return None
        # Who reports no more gets slower by the moment; many report but every so many steps.
        return max(seconds / steps, (now - self.came_at) / self.stride)


class PaceKeeper:
    """Compares the ranks of one attempt."""

    def __init__(self) -> None:
        self._ranks: dict[int, _Rank] = {}
        self._behind: set[int] = set()
        self._looked_at: float | None = None

    def report(
        self, rank: int, step: int, time: float, now: float, own_s: float | None = None
    ) -> None:
        """Takes a report in.

        Args:
            rank: whose it is.
            step: the step that is done.
            time: when, by the rank's own clock, seconds.
            now: when it came here, monotonic seconds.
            own_s: how long the rank itself worked on the step, where the job says so.
        """
        known = self._ranks.get(rank)
        if known is None or step < known.step:
            self._ranks[rank] = _Rank(step, time, now)
            return
        if own_s is not None and 0 <= own_s < float("inf"):
            known.now.own_s += own_s
            known.now.own_count += 1
        if step > known.step and time > known.time:
            known.now.steps += step - known.step
            known.now.seconds += time - known.time
            known.stride = step - known.step
            known.step, known.time, known.came_at = step, time, now

    def forget(self, ranks: Iterable[int]) -> None:
        """Leaves out ranks that have ended."""
        for rank in ranks:
            self._ranks.pop(rank, None)
            self._behind.discard(rank)

    def look(self, now: float) -> tuple[Pace | None, list[Finding]] | None:
        """Returns how the ranks step, and who fell behind or caught up; None between looks."""
        if self._looked_at is not None and now - self._looked_at < LOOK_S:
            return None
        self._looked_at = now
        for known in self._ranks.values():
            known.looks.append(known.now)
            known.now = _Look()
        times = {rank: known.step_s(now) for rank, known in self._ranks.items()}
        pace = _pace({rank: step_s for rank, step_s in times.items() if step_s is not None})
        return pace, self._findings(pace) if pace is not None else []

    def _findings(self, pace: Pace) -> list[Finding]:
        found: list[Finding] = []
        for rank, step_s in pace.step_s.items():
            if step_s <= FACTOR * pace.median_s:
                if rank in self._behind:
                    self._behind.discard(rank)
                    found.append(CaughtUp(rank))
            elif rank not in self._behind and self._has_full_window(rank):
                self._behind.add(rank)
                found.append(FellBehind(rank, step_s, pace.median_s))
        return found

    def _has_full_window(self, rank: int) -> bool:
        looks = self._ranks[rank].looks
        return len(looks) == looks.maxlen


def _pace(step_s: Mapping[int, float]) -> Pace | None:
    """Returns the pace of ranks, None where there are not two to compare.

    >>> _pace({0: 1.0, 1: 1.0, 2: 1.5}).slowest_factor
    1.5
    """
    if len(step_s) < 2:
        return None
    # Of two ranks the faster one is the measure: the mean of both would hide half of the delay.
    median_s = statistics.median_low(step_s.values())
    if median_s <= 0:
        return None
    return Pace(median_s, max(step_s, key=lambda rank: step_s[rank]), step_s)
