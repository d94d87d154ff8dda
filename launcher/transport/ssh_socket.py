"""Gets a byte stream to a server's sshd: TCP or a ProxyCommand, up to its first words.

The server's banner is looked at (not taken) before paramiko sees the socket: what sshd says or
does there, when it has too many logins under way, is worth another try, and costs no thread.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from launcher.errors import NodeUnreachable
from launcher.transport.ssh_target import Target

_PATIENCE_S = 1.0
_PEEK_BYTES = 4096
_TAIL_BYTES = 2048
_USER_TIMEOUT_MS = 45_000
_END_LIMIT_S = 2.0
_TOO_MANY = b"MaxStartups"
# Linux alone tells a half-closed connection apart.
_HUNG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)


class DroppedError(Exception):
    """The server closed the door before it said who it is; later it may not."""


class Turn:
    """A place among the logins that are under way at once.

    A login that only waits for a silent machine steps aside, so that a hundred dead nodes do
    not hold up the living ones.
    """

    def __init__(self, places: threading.Semaphore) -> None:
        self._places = places

    def __enter__(self) -> Turn:
        self._places.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._places.release()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Lets another login go ahead meanwhile."""
        self._places.release()
        try:
            yield
        finally:
            self._places.acquire()


@dataclass
class Deadline:
    """A point on the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Returns the point that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left_s(self) -> float:
        """How many seconds are left, never below 0."""
        return max(0.0, self.at - time.monotonic())

    def sooner(self, seconds: float | None) -> Deadline:
        """Returns this point, or the one that many seconds from now where that is earlier."""
        return self if seconds is None else Deadline(min(self.at, time.monotonic() + seconds))


def backoff_s(attempt: int) -> float:
    """Returns how long to wait before another try, longer each time and never twice the same.

    >>> 0.05 <= backoff_s(0) <= 0.15 and 1.0 <= backoff_s(9) <= 3.0
    True
    """
    return min(2.0, 0.1 * 2.0**attempt) * random.uniform(0.5, 1.5)  # noqa: S311


def connect(target: Target, deadline: Deadline, turn: Turn) -> socket.socket:
    """Returns a TCP connection to the server, over whichever of its addresses answers.

    Raises:
        OSError: none does; the error is that of the last one.
        DroppedError: the server closed the connection at once.
    """
    found = socket.getaddrinfo(target.host, target.port, target.family, socket.SOCK_STREAM)
    for index, (family, kind, protocol, _, address) in enumerate(found):
        share = deadline.left_s / (len(found) - index)
        try:
            return _connect_one(
                socket.socket(family, kind, protocol), address, Deadline.after(share), turn
            )
        except ConnectionResetError as error:
            # It was let in and thrown out before this thread looked: no other address helps.
            raise DroppedError(str(error)) from None
        except OSError:
            if index == len(found) - 1:
                raise
    raise socket.gaierror(socket.EAI_NONAME, "no address")


def _connect_one(
    sock: socket.socket, address: tuple[str, int] | tuple[object, ...], until: Deadline, turn: Turn
) -> socket.socket:
    try:
        _tune(sock)
        sock.setblocking(False)
        # 0 is done, and an error other than "in progress" shows itself once it is writable.
        sock.connect_ex(address)
        if not wait_ready(sock, select.POLLOUT, until, turn):
            raise TimeoutError
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Without it a machine that vanished is noticed after a quarter of an hour.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def wait_ready(sock: socket.socket, event: int, deadline: Deadline, turn: Turn) -> bool:
    """Waits until the socket is ready for `event` (a poll mask); False at the deadline."""
    poll = select.poll()
    poll.register(sock, event)
    if poll.poll(min(_PATIENCE_S, deadline.left_s) * 1000):
        return True
    with turn.aside():
        return bool(poll.poll(deadline.left_s * 1000))


def wait_banner(sock: socket.socket, target: Target, deadline: Deadline, turn: Turn) -> None:
    """Waits until the server has said that it speaks SSH; takes none of its bytes.

    Raises:
        DroppedError: it closed the connection instead.
        TimeoutError: it said nothing.
        NodeUnreachable: what it said is not SSH.
    """
    seen = -1
    while wait_ready(sock, select.POLLIN, deadline, turn):
        try:
            said = sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
        except ConnectionError as error:
            raise DroppedError(str(error)) from None
        if said.startswith(b"SSH-") or b"\nSSH-" in said:
            return
        # Lines before the banner are allowed; bytes that do not grow any more are its last words.
        if not said or _TOO_MANY in said:
            raise DroppedError(said.decode("utf-8", "replace").strip() or "closed without a word")
        if len(said) == seen or len(said) == _PEEK_BYTES:
            raise _not_ssh(target, said)
        seen = len(said)
        _wait_for_more(sock, deadline)
    raise TimeoutError


def _wait_for_more(sock: socket.socket, deadline: Deadline) -> None:
    """Gives a banner that comes in pieces time to become whole, or to end."""
    poll = select.poll()
    poll.register(sock, _HUNG_UP)
    poll.poll(min(_PATIENCE_S, deadline.left_s) * 1000)


def _not_ssh(target: Target, said: bytes) -> NodeUnreachable:
    line = said.decode("utf-8", "replace").splitlines()[0][:80]
    return NodeUnreachable(
        f"what listens on {target.host} port {target.port} is no SSH server: it says {line!r}",
        node=target.node,
        hint="check the port; or its sshd shuts this address out for a while (PerSourcePenalties)",
    )


class Proxy:
    """A ProxyCommand at work, with a real socket to it.

    The socket is one end of a pair, the command's standard input and output are the other: so
    it can be polled, peeked at and shut down like one of the network.
    """

    def __init__(self, command: str) -> None:
        # Closed by `close`, which outlives this block.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.sock, far = socket.socketpair()
        with far:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=far.fileno(),
                stdout=far.fileno(),
                stderr=self._errors,
                start_new_session=True,
            )

    def last_words(self) -> str:
        """Returns the end of what the command wrote to its standard error."""
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - _TAIL_BYTES))
        return self._errors.read().decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Ends the command."""
        self.sock.close()
        self._process.terminate()
        try:
            self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
