"""When which byte of a log came: an index beside each log, so that no whole file need be read.

A record is 16 bytes: a time (seconds, this machine's clock) and the offset of the first byte that
came then. Times and offsets never go down, so a record is found by halving. A record is written
before its bytes are: one too many at the end names bytes that are not there yet and does no harm,
and a torn one is cut off by the next writer and not seen by readers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

RECORD = struct.Struct("<dQ")
# Moments closer than this are one: what a node sees within it, it sends at once.
STEP_S = 0.05
_RECORDS_AT_ONCE = 1024


class TimesWriter:
    """The index of one log, while the log grows."""

    def __init__(self, path: Path) -> None:
        """Goes on with what is there.

        Raises:
            OSError: the file cannot be written.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        size = os.fstat(self._fd).st_size
        whole = size - size % RECORD.size
        if whole != size:
            os.ftruncate(self._fd, whole)
        last = os.pread(self._fd, RECORD.size, whole - RECORD.size) if whole else b""
        self._time, self._offset = RECORD.unpack(last) if last else (float("-inf"), -1)

    def note(self, offset: int, at: float) -> None:
        """Notes that the bytes from an offset on came at this time.

        Raises:
            OSError: the disk does not take it.
        """
        if at - self._time < STEP_S or offset <= self._offset:
            return
        self._time, self._offset = at, offset
        os.write(self._fd, RECORD.pack(at, offset))

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._fd)


class Times:
    """The index of one log, read; as far as it goes now."""

    def __init__(self, path: Path) -> None:
        """Opens it; one that is missing has no records."""
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._fd = -1

    def __len__(self) -> int:
        return os.fstat(self._fd).st_size // RECORD.size if self._fd >= 0 else 0

    def __getitem__(self, number: int) -> tuple[float, int]:
        data = os.pread(self._fd, RECORD.size, number * RECORD.size)
        if len(data) < RECORD.size:
            raise IndexError(number)
        at, offset = RECORD.unpack(data)
        return at, offset

    def offset_since(self, at: float) -> int | None:
        """Returns the offset of the first byte that came at a time or later; None where none did.

        A log without an index is taken from its beginning.
        """
        count = len(self)
        first = self._first(count, lambda record: record[0] >= at)
        if first == count:
            return None if count else 0
        return self[first][1]

    def last_before(self, offset: int) -> int:
        """Returns the number of the record that the byte at an offset belongs to, -1 for none."""
        return self._first(len(self), lambda record: record[1] > offset) - 1

    def after(self, number: int) -> Iterator[tuple[float, int]]:
        """Yields the records behind one, many read at once."""
        at = (number + 1) * RECORD.size
        while self._fd >= 0 and (data := os.pread(self._fd, _RECORDS_AT_ONCE * RECORD.size, at)):
            at += len(data)
            yield from RECORD.iter_unpack(data[: len(data) - len(data) % RECORD.size])

    def _first(self, count: int, is_it: Callable[[tuple[float, int]], bool]) -> int:
        """Returns the number of the first record that is it, `count` where none is."""
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            if is_it(self[middle]):
                high = middle
            else:
                low = middle + 1
        return low

    def close(self) -> None:
        """Lets go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
