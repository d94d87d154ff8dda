"""What the live view knows of a run: gathered from what its watcher is told, ready to be drawn."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from launcher.collect.reports import Metrics
from launcher.core.envelope import Envelope
from launcher.core.pace import Pace
from launcher.core.state import RunState
from launcher.core.usage import Usage
from launcher.wire import events

# The speed that the remaining time is taken from is that of about the last minute.
_SPEED_SAMPLES = 60
_SAMPLE_S = 1.0
# A curve of a line's width, with room for wide terminals.
_TREND_BUCKETS = 120


@dataclass(frozen=True)
class Odd:
    """A value that is not finite: the first such of its name."""

    name: str
    word: str
    rank: int
    step: int | None


@dataclass
class Trend:
    """One metric: its newest value, and its way there."""

    value: object
    curve: Envelope = field(default_factory=lambda: Envelope(_TREND_BUCKETS))
    count: int = 0

    def add(self, step: int | None, value: float) -> None:
        """Takes a value in; without a step it is placed behind the last."""
        self.count += 1
        self.curve.add(float(self.count if step is None else step), value)


@dataclass
class Progress:
    """How far the ranks are: the slowest one counts."""

    steps: dict[int, int] = field(default_factory=dict)
    total: int | None = None
    _lead: int | None = None
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_SPEED_SAMPLES))

    @property
    def step(self) -> int | None:
        """The step that every rank has done."""
        return min(self.steps.values(), default=None)

    def report(self, metrics: Metrics) -> None:
        """Takes a report in."""
        if metrics.step is None:
            return
        if metrics.step < self.steps.get(metrics.rank, 0):
            # Started again from a checkpoint: all ranks go back.
            self.steps.clear()
            self._samples.clear()
        self.steps[metrics.rank] = metrics.step
        self.total = metrics.total if metrics.total is not None else self.total
        self._lead = metrics.rank if self._lead is None else min(self._lead, metrics.rank)
        if metrics.rank == self._lead and (
            not self._samples or metrics.time - self._samples[-1][0] >= _SAMPLE_S
        ):
            self._samples.append((metrics.time, metrics.step))

    def left_s(self) -> float | None:
        """Returns how long the rest takes at the speed of the last minute, None if unknown."""
        step = self.step
        if self.total is None or step is None or len(self._samples) < 2:
            return None
        (then, first), (now, last) = self._samples[0], self._samples[-1]
        if last <= first or now <= then:
            return None
        return max(0, self.total - step) * (now - then) / (last - first)


class Board:
    """Everything that the panel shows."""

    def __init__(self, title: str, nodes: Mapping[int, str]) -> None:
        """Takes the run's name and the node of each rank."""
        self.title = title
        self.ranks: dict[str, list[int]] = {}
        for rank, node in nodes.items():
            self.ranks.setdefault(node, []).append(rank)
        self.node_of = nodes
        self.state: RunState | None = None
        self.progress = Progress()
        self.trends: dict[str, Trend] = {}
        self.odd: dict[str, Odd] = {}
        self.pace: Pace | None = None
        self.usage: dict[str, Usage] = {}
        self.waiting = ""
        self.building: dict[str, events.RuntimeProgress] = {}
        self._told_by: dict[str, int] = {}

    def report(self, metrics: Metrics) -> None:
        """Takes a worker's report in. A curve is that of the lowest rank that reports it."""
        self.progress.report(metrics)
        for name, value in metrics.values.items():
            number = _number(value)
            if number is None:
                continue
            if not math.isfinite(number) and name not in self.odd:
                self.odd[name] = Odd(name, str(value), metrics.rank, metrics.step)
            if metrics.rank > self._told_by.setdefault(name, metrics.rank):
                continue
            if metrics.rank < self._told_by[name]:
                self._told_by[name] = metrics.rank
                del self.trends[name]
            trend = self.trends.setdefault(name, Trend(value))
            trend.value = value
            trend.add(metrics.step, number)


def _number(value: object) -> float | None:
    """Returns a reported value as a number; words stand for those that JSON lacks.

    >>> _number(3), _number("inf"), _number("fast"), _number(True)
    (3.0, inf, None, None)
    """
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
