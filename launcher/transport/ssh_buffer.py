"""A channel's buffer for bulk bytes: what came is joined once, not moved down at each read."""

from __future__ import annotations

import threading
import time

from paramiko.buffered_pipe import PipeTimeout

# What is smaller is put together at once: a piece of one byte would hold fifty of memory.
_SMALL_BYTES = 4096


class PieceBuffer:
    """What a paramiko channel keeps between its thread and the reader, in the pieces that came.

    It stands in for `paramiko.buffered_pipe.BufferedPipe` on channels that are read by `recv`
    alone, not through a file descriptor. That one appends each packet to an array, copies from it
    what is read and moves the rest down: on two cores that was a seventh of the time that a
    checkpoint took to come here.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self._came = threading.Condition()
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, from any thread."""
        with self._came:
            if len(data) >= _SMALL_BYTES:
                self._pieces.append(data)
            elif self._pieces and isinstance(self._pieces[-1], bytearray):
                self._pieces[-1] += data
            else:
                self._pieces.append(bytearray(data))
            self._came.notify_all()

    def close(self) -> None:
        """Nothing more comes."""
        with self._came:
            self._closed = True
            self._came.notify_all()

    def read_ready(self) -> bool:
        """Tells whether `read` has bytes to return at once."""
        with self._came:
            return bool(self._pieces)

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        """Returns what is there, at most so many bytes, once there is some; b"" at the end.

        Raises:
            PipeTimeout: nothing came in `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._came:
            while not self._pieces:
                if self._closed:
                    return b""
                left_s = None if until is None else until - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise PipeTimeout
                self._came.wait(left_s)
            return self._take(nbytes)

    def _take(self, nbytes: int) -> bytes:
        data = b"".join(self._pieces)
        self._pieces = [data[nbytes:]] if len(data) > nbytes else []
        return data[:nbytes]

    def __len__(self) -> int:
        with self._came:
            return sum(map(len, self._pieces))
