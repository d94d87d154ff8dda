"""The two descriptors that lead to a launcher, without ever blocking the agent."""

import collections
import fcntl
import os
from typing import Deque, Optional

CHUNK_BYTES = 256 * 1024
# Linux gives a pipe 64 KiB; a larger one saves most of the switches between agent and sshd.
PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031


class Link:
    """Reads commands from one descriptor and writes events to the other.

    Attributes:
        pending_bytes: queued here and not yet taken by the far side.
        broken: the far side is gone; nothing more can be read or written.
    """

    def __init__(self, in_fd: int, out_fd: int, token_fd: int) -> None:
        """Takes over three descriptors.

        Args:
            in_fd: commands come from here.
            out_fd: events go there.
            token_fd: held open as long as the link is used; the process that brought the
                descriptors waits for its end, so that the remote command lasts as long.
        """
        self.in_fd = in_fd
        self.out_fd = out_fd
        self._token_fd = token_fd
        self._queue: Deque[memoryview] = collections.deque()
        self.pending_bytes = 0
        self.broken = False
        for fd in (in_fd, out_fd):
            os.set_blocking(fd, False)
        try:
            fcntl.fcntl(out_fd, _F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # a socket, or a user over the limit for pipes: the default size will do

    def read(self) -> Optional[bytes]:
        """Returns what has come, b"" where nothing has, None at the end."""
        try:
            return os.read(self.in_fd, CHUNK_BYTES) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def queue(self, data: bytes) -> None:
        """Takes bytes to be written."""
        if not data:
            return
        self._queue.append(memoryview(data))
        self.pending_bytes += len(data)

    def flush(self) -> None:
        """Writes as much as the far side takes at once."""
        while self._queue:
            try:
                count = os.writev(self.out_fd, list(self._queue)[:16])
            except BlockingIOError:
                return
            except OSError:
                self.broken = True
                return
            self._drop(count)

    def _drop(self, count: int) -> None:
        self.pending_bytes -= count
        while count:
            head = self._queue[0]
            if len(head) > count:
                self._queue[0] = head[count:]
                return
            count -= len(head)
            self._queue.popleft()

    def flush_blocking(self) -> None:
        """Writes everything, waiting for the far side."""
        os.set_blocking(self.out_fd, True)
        while self._queue and not self.broken:
            self.flush()

    def close(self) -> None:
        """Lets go of the descriptors."""
        for fd in (self.in_fd, self.out_fd, self._token_fd):
            os.close(fd)
