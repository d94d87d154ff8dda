"""A long curve in few points that hide nothing: a bucket's ends, its low and its high. Pure.

The width of the buckets doubles whenever there are too many, so a curve may grow for ever and its
points may come in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Bucket:
    """What lies in one stretch of a curve; each point is (x, y).

    Attributes:
        odd: the first value that is not finite, if there was one.
        count: how many points there were.
    """

    first: tuple[float, float]
    last: tuple[float, float]
    low: tuple[float, float]
    high: tuple[float, float]
    odd: tuple[float, float] | None = None
    count: int = 0

    def points(self) -> list[tuple[float, float]]:
        """Returns the finite points that show what happened here, in the order of x."""
        return sorted({self.first, self.low, self.high, self.last} - {_NOWHERE})


_NOWHERE = (math.inf, math.inf)


class Envelope:
    """One curve in at most so many buckets."""

    def __init__(self, most: int, width: float = 1.0) -> None:
        """Begins with buckets of a width in x."""
        self._most = max(2, most)
        self._width = width
        self._buckets: dict[int, Bucket] = {}

    def add(self, x: float, y: float) -> None:
        """Takes a point in. Its y may be anything but its x is finite."""
        index = math.floor(x / self._width)
        bucket = self._buckets.get(index)
        if bucket is None:
            bucket = self._buckets[index] = _empty()
        point = (x, y)
        bucket.count += 1
        if y - y != 0:  # NaN or an infinity
            if bucket.odd is None or x < bucket.odd[0]:
                bucket.odd = point
        elif bucket.first is _NOWHERE:
            bucket.first = bucket.last = bucket.low = bucket.high = point
        else:
            if x < bucket.first[0]:
                bucket.first = point
            elif x >= bucket.last[0]:
                bucket.last = point
            if y < bucket.low[1]:
                bucket.low = point
            elif y > bucket.high[1]:
                bucket.high = point
        while len(self._buckets) > self._most:
            self._widen()

    def narrow(self, most: int) -> None:
        """Keeps to so many buckets from now on; there may always be one on each side of zero."""
        self._most = max(2, most)
        while len(self._buckets) > self._most:
            self._widen()

    def _widen(self) -> None:
        self._width *= 2
        merged: dict[int, Bucket] = {}
        for index in sorted(self._buckets):
            bucket = self._buckets[index]
            before = merged.get(index // 2)
            merged[index // 2] = bucket if before is None else _joined(before, bucket)
        self._buckets = merged

    def buckets(self) -> list[Bucket]:
        """Returns the buckets in the order of x."""
        return [self._buckets[index] for index in sorted(self._buckets)]


def _empty() -> Bucket:
    return Bucket(_NOWHERE, _NOWHERE, _NOWHERE, _NOWHERE)


def _joined(left: Bucket, right: Bucket) -> Bucket:
    """Returns two buckets that stand side by side as one.

    >>> left, right = Envelope(9), Envelope(9)
    >>> left.add(0, 5.0); right.add(1, 7.0)
    >>> _joined(left.buckets()[0], right.buckets()[0]).points()
    [(0, 5.0), (1, 7.0)]
    """
    odd = left.odd or right.odd
    count = left.count + right.count
    if left.first is _NOWHERE or right.first is _NOWHERE:
        full = right if left.first is _NOWHERE else left
        return Bucket(full.first, full.last, full.low, full.high, odd, count)
    low = left.low if left.low[1] <= right.low[1] else right.low
    high = left.high if left.high[1] >= right.high[1] else right.high
    return Bucket(left.first, right.last, low, high, odd, count)
