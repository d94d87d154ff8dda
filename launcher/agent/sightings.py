"""When the bytes of a growing file were first seen, within bounds."""

import bisect
from typing import List

# So many moments are remembered of a file; older ones are told apart less and less finely.
MOST_SIGHTINGS = 1024
# What comes within this time came at once, and travels as one.
STEP_S = 0.03


class Sightings:
    """Which size a file had when it was looked at.

    >>> seen = Sightings()
    >>> seen.note(100, 1.0)
    >>> seen.note(250, 2.0)
    >>> seen.clock_of(99), seen.clock_of(100), seen.end_of(100)
    (1.0, 2.0, 250)
    """

    def __init__(self) -> None:
        self._sizes: List[int] = []
        self._clocks: List[float] = []

    def note(self, size: int, clock: float) -> None:
        """Notes that the file had this size at this time; only growth is news."""
        if size <= (self._sizes[-1] if self._sizes else 0):
            return
        if self._clocks and clock - self._clocks[-1] < STEP_S:
            self._sizes[-1] = size
            return
        self._sizes.append(size)
        self._clocks.append(clock)
        if len(self._sizes) > MOST_SIGHTINGS:
            # Of each two neighbours the later one stays, and then stands for the bytes of both.
            half = MOST_SIGHTINGS // 2
            self._sizes[:half] = self._sizes[1:half:2]
            self._clocks[:half] = self._clocks[1:half:2]

    def clock_of(self, offset: int) -> float:
        """Returns when the byte at an offset was seen first, 0 where it was not seen yet."""
        at = bisect.bisect_right(self._sizes, offset)
        return self._clocks[at] if at < len(self._clocks) else 0.0

    def end_of(self, offset: int) -> int:
        """Returns up to where bytes were seen together with the one at an offset."""
        at = bisect.bisect_right(self._sizes, offset)
        return self._sizes[at] if at < len(self._sizes) else offset
