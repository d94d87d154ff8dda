"""The local transport: the command is a child of this process, behind three pipes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from launcher.core.model import NodeSpec
from launcher.errors import NodeLost, NodeUnreachable

_TAIL_BYTES = 8 * 1024
_PIPE_BYTES = 1024 * 1024
_END_LIMIT_S = 1.0
_F_SETPIPE_SZ = 1031
# What a shell would do for a program that it does not find: its words and its code.
_MISSING = ("/bin/sh", "-c", 'echo "$1: $2" >&2; exit 127', "sh")


class LocalConnection:
    """One running child (see `launcher.transport.base.Connection`)."""

    def __init__(
        self,
        node: str,
        process: subprocess.Popen[bytes],
        on_close: Callable[[LocalConnection], None],
    ) -> None:
        self._node = node
        self._process = process
        self._on_close = on_close
        self._stdin, self._stdout, self._stderr = (
            _prepared(pipe) for pipe in (process.stdin, process.stdout, process.stderr)
        )
        # Polled beside each pipe: closing its far end wakes every thread that waits.
        self._wake, self._wake_far = os.pipe()
        self._closing = threading.Lock()
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        self._closed = False
        self._tail = b""
        self._tail_lock = threading.Lock()
        self._tail_thread = threading.Thread(target=self._keep_tail, name=f"stderr of {node}")
        self._tail_thread.daemon = True
        self._tail_thread.start()

    @property
    def node(self) -> str:
        """The node's name."""
        return self._node

    def send(self, data: bytes) -> None:
        """Writes all of `data` to the child's standard input.

        Raises:
            NodeLost: the child no longer reads, or the connection was closed here.
        """
        view = memoryview(data)
        with self._sending:
            while view:
                self._wait(self._stdin, select.POLLOUT)
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise self._lost("the command no longer reads its input") from None

    def receive(self, max_bytes: int) -> bytes:
        """Returns the next bytes of its standard output, at least one; b"" at its end.

        Raises:
            NodeLost: the connection was closed here.
        """
        with self._receiving:
            while True:
                self._wait(self._stdout, select.POLLIN)
                with contextlib.suppress(BlockingIOError):
                    return os.read(self._stdout, max_bytes)

    def exit_status(self, timeout_s: float) -> int | None:
        """Returns how the child ended, 128 + n for signal n, or None where it has not yet."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return 128 - code if code < 0 else code

    def stderr_tail(self) -> str:
        """Returns the end (8 KiB) of what it wrote to its standard error so far."""
        with self._closing:
            if not self._closed:
                self._drain_stderr()
        return self._tail.decode("utf-8", "replace")

    def close(self) -> None:
        """Closes the pipes and waits for the child, which is asked to end where it does not."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            os.close(self._wake_far)
            with self._sending, self._receiving:
                self._tail_thread.join()
                self._let_go()
        self._end_child()
        self._on_close(self)

    def _let_go(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        os.close(self._wake)

    def _end_child(self) -> None:
        # Only the child itself: what it left running detached is not ours to end.
        for end in (self._process.terminate, self._process.kill):
            if self.exit_status(_END_LIMIT_S) is not None:
                return
            end()
        self._process.wait()

    def _wait(self, fd: int, event: int) -> None:
        if self._closed:
            raise self._lost("it was closed here")
        poll = select.poll()
        poll.register(fd, event)
        poll.register(self._wake, select.POLLIN)
        poll.poll()
        if self._closed:
            raise self._lost("it was closed here")

    def _keep_tail(self) -> None:
        while True:
            try:
                self._wait(self._stderr, select.POLLIN)
            except NodeLost:
                return
            if not self._drain_stderr():
                return

    def _drain_stderr(self) -> bool:
        """Takes what is there; False at the end of it."""
        with self._tail_lock:
            try:
                while piece := os.read(self._stderr, _PIPE_BYTES):
                    self._tail = (self._tail + piece)[-_TAIL_BYTES:]
            except BlockingIOError:
                return True
            return False

    def _lost(self, why: str) -> NodeLost:
        return NodeLost(
            f"the connection to the local command broke: {why}",
            node=self._node,
            hint=self._tail.decode("utf-8", "replace").strip(),
        )


def _prepared(pipe: IO[bytes] | None) -> int:
    assert pipe is not None
    fd = pipe.fileno()
    os.set_blocking(fd, False)
    _enlarge(fd)
    return fd


def _enlarge(fd: int) -> None:
    """Makes a pipe hold a megabyte where the system lets it; 64 KiB only cost more turns."""
    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        return


class LocalTransport:
    """Runs commands on this machine (see `launcher.transport.base.Transport`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[LocalConnection] = set()

    def open(self, node: NodeSpec, argv: Sequence[str], *, timeout_s: float) -> LocalConnection:
        """Starts `argv` in the home directory, as a login would, out of the terminal's reach.

        A program that is not there ends with 127, as a shell has it.

        Raises:
            NodeUnreachable: this machine cannot start another process.
        """
        del timeout_s  # Starting a child does not wait for anything.
        try:
            process = _start(argv)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            process = _start([*_MISSING, str(argv[0]), str(error.strerror)])
        except OSError as error:
            raise NodeUnreachable(
                f"this machine cannot start a process: {error}",
                node=node.name,
                hint="look at its memory and at `ulimit -u` and `ulimit -n`",
            ) from None
        connection = LocalConnection(node.name, process, self._forget)
        with self._lock:
            self._open.add(connection)
        return connection

    def close(self) -> None:
        """Ends every connection that it made."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.close()

    def _forget(self, connection: LocalConnection) -> None:
        with self._lock:
            self._open.discard(connection)


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    home = Path.home()
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home if home.is_dir() else None,
        bufsize=0,
        start_new_session=True,
    )
