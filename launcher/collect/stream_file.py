"""One stream of one worker on this machine: its bytes at their offsets, and what is missing."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from launcher.collect.log_times import TimesWriter

DIFFERS = "the bytes here are not those that the worker wrote"
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Span:
    """Bytes from `start` up to before `end`."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"bytes {self.start} to {self.end}"


class StreamFile:
    """A file that grows at its end, and in its gaps.

    Attributes:
        size: where its last byte ends, gaps included.
        gaps: what is missing before that, in order.
    """

    def __init__(self, path: Path | None, times: Path | None = None) -> None:
        """Goes on where the file ends; without a path the bytes are only proven, not kept.

        Raises:
            OSError: the file cannot be written.
        """
        self.size = 0
        self.gaps: list[Span] = []
        self._fd = -1
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._times: TimesWriter | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self.size = os.fstat(self._fd).st_size
            self._times = TimesWriter(times) if times is not None else None

    @property
    def whole_bytes(self) -> int:
        """Up to where nothing is missing."""
        return self.gaps[0].start if self.gaps else self.size

    def append(self, offset: int, data: bytes, at: float | None = None) -> bytes:
        """Takes bytes; returns those that are new.

        Bytes that lie beyond the end make a gap; bytes that lie in one fill it.

        Args:
            offset: where the first of them stands.
            data: the bytes.
            at: when the worker wrote them, by this machine's clock.

        Raises:
            OSError: the disk does not take them.
        """
        if self.gaps and offset < self.size:
            return self._fill(offset, data)
        if offset > self.size:
            self.gaps.append(Span(self.size, offset))
            self.size = offset
        fresh = data[self.size - offset :] if offset < self.size else data
        if not fresh:
            return fresh
        if self._times is not None and at is not None:
            self._times.note(self.size, at)
        self._write(fresh, self.size)
        if self._hashed == self.size:
            self._hash.update(fresh)
            self._hashed += len(fresh)
        self.size += len(fresh)
        return fresh

    def _fill(self, offset: int, data: bytes) -> bytes:
        """Writes what lies in gaps, and what goes on behind the end."""
        end, filled, left = offset + len(data), [], []
        for gap in self.gaps:
            start, stop = max(gap.start, offset), min(gap.end, end)
            if start >= stop:
                left.append(gap)
                continue
            piece = data[start - offset : stop - offset]
            self._write(piece, start)
            filled.append(piece)
            rests = (Span(gap.start, start), Span(stop, gap.end))
            left += [rest for rest in rests if rest.start < rest.end]
        self.gaps = left
        if end > self.size:
            filled.append(self.append(self.size, data[self.size - offset :]))
        return b"".join(filled)

    def _write(self, data: bytes, offset: int) -> None:
        """Writes all of it; where a disk takes only a part, the next write says why."""
        if self._fd < 0:
            return
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, offset)
            view, offset = view[count:], offset + count

    def problem_with(self, size: int, sha256: str) -> str:
        """Returns what is wrong with the stream if it should be this one, "" if nothing is.

        Args:
            size: how many bytes the worker wrote.
            sha256: the hash over them; "" where the node cannot tell.
        """
        if self.gaps:
            return f"{', '.join(map(str, self.gaps))} are missing"
        if self.size != size:
            return f"{self.size} of {size} bytes are here"
        if sha256 and self._digest() != sha256:
            return DIFFERS
        return ""

    def distrust(self) -> None:
        """Takes every byte for missing: which of them are wrong, nobody knows."""
        self.gaps = [Span(0, self.size)]
        self._hash, self._hashed = hashlib.sha256(), 0

    def _digest(self) -> str:
        """Returns the hash over the file; what was not hashed as it came is read."""
        while self._hashed < self.size and self._fd >= 0:
            data = os.pread(self._fd, _READ_BYTES, self._hashed)
            if not data:
                break
            self._hash.update(data)
            self._hashed += len(data)
        return self._hash.hexdigest()

    def sync(self) -> int:
        """Makes sure that the bytes survive a power cut; returns up to where they do.

        Any thread may call it.
        """
        whole = self.whole_bytes
        if self._fd >= 0:
            os.fdatasync(self._fd)
        return whole

    def close(self) -> None:
        """Lets go of the files."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._times is not None:
            self._times.close()
            self._times = None
