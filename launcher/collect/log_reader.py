"""The logs of a run, read from its directory: whole or from a place in them, while they grow."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher.collect.log_times import Times
from launcher.core.paths import RunPaths
from launcher.store.run_record import store_error

if TYPE_CHECKING:
    from launcher.collect.stream_file import Span

READ_BYTES = 1 << 20
# What is read at once when lines are looked for from the end.
_BACK_BYTES = 1 << 16
# A line is followed back no further than this.
_MAX_BACK_BYTES = 1 << 24
_NAME = re.compile(r"rank-(\d+)\.(stdout|stderr)\.log")


@dataclass(frozen=True, order=True)
class LogName:
    """One stream of one worker. Their order is the order in which people look for them."""

    rank: int
    node: str
    is_stderr: bool

    @property
    def stream(self) -> str:
        """Stdout or stderr."""
        return "stderr" if self.is_stderr else "stdout"


class Piece(NamedTuple):
    """Bytes of a log, and when they came by this machine's clock; 0 where nobody noted it."""

    time: float
    data: bytes


def find_logs(paths: RunPaths) -> list[LogName]:
    """Returns the logs that are in a run's directory now.

    Raises:
        StoreError: the directory cannot be read.
    """
    found = []
    try:
        for node in os.scandir(paths.logs):
            if node.is_dir():
                matches = (_NAME.fullmatch(entry.name) for entry in os.scandir(node.path))
                found += [
                    LogName(int(match[1]), node.name, match[2] == "stderr")
                    for match in matches
                    if match is not None
                ]
    except OSError as error:
        raise store_error(error, Path(paths.logs)) from None
    return sorted(found)


def known_gaps(paths: RunPaths) -> dict[tuple[str, int, str], list[Span]]:
    """Returns what is missing inside of the logs, by node, rank and stream.

    Raises:
        StoreError: events.jsonl cannot be read.
    """
    try:
        data = Path(paths.events).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise store_error(error, Path(paths.events)) from None
    if b'"log_gap' not in data:
        return {}
    from launcher.collect.logs import open_gaps

    return open_gaps(data.splitlines())


class LogReader:
    """Reads one log, from a place on and as far as it goes now.

    Attributes:
        offset: where the next byte stands.
    """

    def __init__(self, paths: RunPaths, name: LogName, gaps: Sequence[Span] = ()) -> None:
        """Opens it at its first byte.

        Raises:
            StoreError: it cannot be read.
        """
        self.name = name
        self.offset = 0
        self._gaps = gaps
        self._path = Path(paths.log(name.node, name.rank, name.stream))
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._times = Times(Path(paths.log_times(name.node, name.rank, name.stream)))
        except OSError as error:
            raise store_error(error, self._path) from None

    def size(self) -> int:
        """Returns how long it is now."""
        return os.fstat(self._fd).st_size

    def seek_since(self, at: float) -> None:
        """Goes to the first line that came, or was completed, at a time or later."""
        offset = self._times.offset_since(at)
        size = self.size()
        if offset is None or offset >= size:
            self.offset = size
            return
        before = max(0, offset - READ_BYTES)
        start = self._pread(before, offset - before).rfind(b"\n") + 1
        self.offset = before + start

    def seek_tail(self, count: int, is_wanted: Callable[[bytes], bool]) -> None:
        """Goes forward to where the last so many wanted lines begin; stays where there are fewer.

        Only the end of the file is read, as far as needed.
        """
        self.offset = max(self.offset, self._tail_offset(count, is_wanted))

    def _tail_offset(self, count: int, is_wanted: Callable[[bytes], bool]) -> int:
        if count == 0:
            return self.size()
        stop, carry, block_bytes = self.size(), b"", _BACK_BYTES
        while stop > self.offset:
            start = max(self.offset, stop - block_bytes)
            block_bytes = min(2 * block_bytes, READ_BYTES)
            data = self._pread(start, stop - start) + carry
            # What begins before this block ends in the next one.
            is_first = start == self.offset or len(data) > _MAX_BACK_BYTES
            cut = 0 if is_first else data.find(b"\n") + 1 or len(data)
            at = start + len(data)
            for line in _lines_backwards(data[cut:]):
                at -= len(line)
                if is_wanted(line.rstrip(b"\n")):
                    count -= 1
                    if count == 0:
                        return at
            stop, carry = start, data[:cut]
        return self.offset

    def pieces(self) -> Iterator[Piece]:
        """Yields what is there from the present place on, apart by when it came."""
        for time, end in self._moments(self.offset, self.size()):
            while self.offset < end:
                data = self._next(end)
                if data:
                    yield Piece(time, data)

    def _next(self, end: int) -> bytes:
        """Returns the next bytes up to `end` at most; passes over what is missing."""
        for gap in self._gaps:
            if gap.start <= self.offset < gap.end:
                self.offset = min(gap.end, end)
                return b""
            if self.offset < gap.start < end:
                end = gap.start
        data = self._pread(self.offset, min(READ_BYTES, end - self.offset))
        # A file that was cut meanwhile ends here.
        self.offset = self.offset + len(data) if data else end
        return data

    def _moments(self, start: int, end: int) -> Iterator[tuple[float, int]]:
        """Yields times, each with where its bytes end, for the bytes from `start` to `end`."""
        number = self._times.last_before(start)
        time = self._times[number][0] if number >= 0 else 0.0
        for at, offset in self._times.after(number):
            if offset >= end:
                break
            if offset > start:
                yield time, offset
            time = at
        yield time, end

    def _pread(self, offset: int, count: int) -> bytes:
        try:
            return os.pread(self._fd, count, offset)
        except OSError as error:
            raise store_error(error, self._path) from None

    def close(self) -> None:
        """Lets go of the files."""
        os.close(self._fd)
        self._times.close()


def _lines_backwards(data: bytes) -> Iterator[bytes]:
    """Yields lines with their ends, the last one first."""
    stop = len(data)
    while stop > 0:
        start = data.rfind(b"\n", 0, stop - 1) + 1
        yield data[start:stop]
        stop = start


def by_time(readers: Iterable[LogReader]) -> Iterator[tuple[LogReader, Piece]]:
    """Yields the pieces of several logs in the order in which they came."""

    def timed(reader: LogReader) -> Iterator[tuple[float, LogName, LogReader, Piece]]:
        return ((piece.time, reader.name, reader, piece) for piece in reader.pieces())

    merged = heapq.merge(*map(timed, readers), key=lambda item: item[:2])
    return ((reader, piece) for _, _, reader, piece in merged)


def matcher(expression: str) -> Callable[[bytes], bool]:
    r"""Returns what says whether a line has a match; bytes are compared, not characters.

    >>> has_loss = matcher(r"loss \d")
    >>> has_loss(b"loss 3 \xff"), has_loss(b"accuracy")
    (True, False)

    Raises:
        ValueError: it is no regular expression.
    """
    try:
        search = re.compile(os.fsencode(expression)).search
    except re.error as error:
        raise ValueError(str(error)) from None
    return lambda line: search(line) is not None
