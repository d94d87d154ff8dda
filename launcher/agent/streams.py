"""A worker's output: files that it writes by itself and that the agent reads behind it.

The agent is not in the worker's way: a slow launcher never blocks a training step, and what was
written survives the agent.
"""

import hashlib
import os
import re
from typing import List, Tuple

from launcher.agent import holes
from launcher.agent.sightings import Sightings

STDOUT, STDERR, REPORT = STREAMS = ("stdout", "stderr", "report")
# Holes are made of whole blocks, and not for a few of them.
_BLOCK_BYTES = 4096


_LOG_NAME = re.compile(r"rank-(\d+)\.stdout\.log")


def log_path(directory: str, rank: int, stream: str) -> str:
    """Returns the file that a worker's stream goes to."""
    return os.path.join(directory, "rank-%d.%s.log" % (rank, stream))


def stacks_path(directory: str, rank: int) -> str:
    """Returns the file that a worker writes to where its Python code is, when it is asked."""
    return os.path.join(directory, "rank-%d.stacks" % rank)


def ranks_in(directory: str) -> List[int]:
    """Returns the ranks of which there are logs."""
    found = [_LOG_NAME.fullmatch(name) for name in os.listdir(directory)]
    return sorted(int(name.group(1)) for name in found if name)


class Stream:
    """One growing file, sent from an offset on, with a hash over all of it.

    Attributes:
        offset: from where on is to be sent.
        released: before here the bytes are gone; they were elsewhere by then.
        seen: when its bytes came.
    """

    def __init__(self, path: str, chunk_bytes: int) -> None:
        self.path = path
        self.seen = Sightings()
        self._chunk_bytes = chunk_bytes
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # What an agent before this one gave back is not there to be hashed.
        self.released = self.offset = holes.first_data(self._fd)
        self._is_hashable = self.released == 0

    def look(self, clock: float) -> int:
        """Notes how far the worker is; returns how many bytes of it nobody was sent yet."""
        size = self.size()
        self.seen.note(size, clock)
        return size - self.offset

    def read(self) -> bytes:
        """Returns the next bytes that nobody was sent yet, b"" where there are none.

        Bytes that were seen at different times come one after the other.
        """
        together = self.seen.end_of(self.offset) - self.offset
        count = min(self._chunk_bytes, together) if together > 0 else self._chunk_bytes
        data = os.pread(self._fd, count, self.offset)
        self._take_into_hash(data)
        self.offset += len(data)
        return data

    def _take_into_hash(self, data: bytes) -> None:
        # After a re-attach the offset may lie behind what is hashed already.
        fresh = data[max(0, self._hashed - self.offset) :]
        if fresh and self.offset <= self._hashed:
            self._hash.update(fresh)
            self._hashed += len(fresh)

    def seek(self, offset: int) -> None:
        """Sends from this offset on from now on, but never what is gone."""
        self.offset = min(max(self.released, offset), self.size())

    def release(self, offset: int, keep_bytes: int) -> None:
        """Gives bytes that are elsewhere back to the disk, where more than `keep_bytes` are here.

        Args:
            offset: what lies before it is elsewhere, for good.
            keep_bytes: what may stay here of them.

        Raises:
            OSError: the file system cannot make holes.
        """
        # The hash needs each byte once.
        end = min(offset, self._hashed) if self._is_hashable else min(offset, self.size())
        end -= end % _BLOCK_BYTES
        if self.size() - self.released > keep_bytes and end > self.released:
            holes.punch(self.path, end)
            self.released = end

    def size(self) -> int:
        """Returns how many bytes the worker has written so far."""
        return os.fstat(self._fd).st_size

    def is_drained(self) -> bool:
        """Says whether all that is written was read."""
        return self.offset >= self.size()

    def digest(self) -> Tuple[int, str]:
        """Returns the size and the sha256, in hex, of all that is written.

        The hash is "" where the beginning was given back before this agent came.
        """
        if not self._is_hashable:
            return self.size(), ""
        while True:
            data = os.pread(self._fd, self._chunk_bytes, self._hashed)
            if not data:
                return self._hashed, self._hash.hexdigest()
            self._hash.update(data)
            self._hashed += len(data)

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._fd)


class LineReader:
    """Reads whole lines of a growing file, each once."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._offset = 0
        self._rest = b""

    def read_lines(self) -> "list[bytes]":
        """Returns the lines that were completed since the last call."""
        data = os.pread(self._fd, 1024 * 1024, self._offset)
        if not data:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._fd)
