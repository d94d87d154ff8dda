"""A paramiko transport set up for bulk bytes, and the connection that callers hold."""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
import threading
from collections.abc import Callable, Sequence

import paramiko
from paramiko.auth_handler import AuthHandler

from launcher.errors import NodeLost
from launcher.transport.ssh_buffer import PieceBuffer
from launcher.transport.ssh_errors import Stage, lost, translate
from launcher.transport.ssh_socket import Proxy
from launcher.transport.ssh_target import Target

# Measured over loopback: AES-GCM first and large packets carry 700 MB/s where paramiko's defaults
# carry a fifth of it. What a window allows fills memory here where the reader is slow, twice: once
# in paramiko and once on its way out. So all windows together have a bound, and each its share.
WINDOW_BYTES = 4 * 1024 * 1024
LEAST_WINDOW_BYTES = 128 * 1024
ALL_WINDOWS_BYTES = 16 * 1024 * 1024
PACKET_BYTES = 256 * 1024
_SEND_BYTES = 128 * 1024
_TAIL_BYTES = 8 * 1024
_KEEPALIVE_S = 15
_LOGIN_SERVICE = b"\0\0\0\x0cssh-userauth"
_CLOSED_HERE = "it was closed here"

_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
_MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha1",
)
# Group exchange has the server search a file of primes and is slow on both sides.
_KEX = (
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
)

logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


class _AuthHandler(AuthHandler):
    """Asks for the login service once a connection.

    paramiko asks again with each key; asyncssh's server hangs up on that. Once the service is
    granted, requests are made in the caller's thread, where an agent that does not sign is an
    exception of that key instead of the end of the connection.
    """

    transport: Client

    def _request_auth(self) -> None:
        if self.transport.is_service_granted:
            super()._parse_service_accept(paramiko.Message(_LOGIN_SERVICE))  # type: ignore[misc]
        else:
            super()._request_auth()  # type: ignore[misc]

    def _parse_service_accept(self, m: paramiko.Message) -> None:
        self.transport.is_service_granted = True
        super()._parse_service_accept(m)  # type: ignore[misc]


class Client(paramiko.Transport):
    """paramiko's transport, which keeps the server's last words and wakes at once when closed."""

    # paramiko wakes this often to see whether it was closed. `Link.close` shuts the socket down
    # instead, so a thousand idle connections need not wake ten thousand times a second.
    _active_check_timeout = 1.0

    def __init__(self, stream: socket.socket | paramiko.Channel, key_types: Sequence[str]) -> None:
        super().__init__(
            stream,
            default_window_size=WINDOW_BYTES,
            default_max_packet_size=PACKET_BYTES,
        )
        offered = self.get_security_options()
        offered.ciphers = _CIPHERS
        offered.digests = _MACS
        offered.kex = _KEX
        self._host_key_types = tuple(key_types)
        self.last_words = ""
        self.is_service_granted = False

    def authenticate(self, begin: Callable[[AuthHandler, threading.Event], None]) -> list[str]:
        """Makes one attempt; returns what the server wants besides, empty when logged in.

        Raises:
            SSHException: the attempt failed.
        """
        handler, done = _AuthHandler(self), threading.Event()
        self.auth_handler = handler
        begin(handler, done)
        return handler.wait_for_response(done)

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The host key types to ask for. paramiko adds certificates, but cannot check them."""
        return self._host_key_types

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.last_words = m.get_text()


class Link:
    """One server, logged in to, with everything that has to be closed with it."""

    def __init__(
        self,
        target: Target,
        client: Client,
        stream: socket.socket | paramiko.Channel,
        proxy: Proxy | None = None,
    ) -> None:
        self.target = target
        self.client = client
        self._stream = stream
        self._proxy = proxy
        self._lock = threading.Lock()
        self._closed = False

    @property
    def is_alive(self) -> bool:
        """Whether another channel may be opened on it."""
        return not self._closed and self.client.is_active()

    def stream_to(self, host: str, port: int, timeout_s: float) -> paramiko.Channel:
        """Opens a stream from this server on to another one."""
        return self.client.open_channel(
            "direct-tcpip",
            (host, port),
            ("127.0.0.1", 0),
            window_size=WINDOW_BYTES,
            max_packet_size=PACKET_BYTES,
            timeout=timeout_s,
        )

    def close(self) -> None:
        """Ends it, and every thread of it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            # Wakes paramiko's thread, which would sit in recv up to a second longer.
            self._stream.shutdown(socket.SHUT_RDWR)
        self.client.close()
        # Ends the timer that paramiko leaves running where a handshake failed.
        self.client.packetizer.complete_handshake()
        self._stream.close()
        if self.client.ident is not None and self.client is not threading.current_thread():
            self.client.join(2 * self.client._active_check_timeout)
        if self._proxy is not None:
            self._proxy.close()


class SshConnection:
    """One running command on one node (see `launcher.transport.base.Connection`)."""

    def __init__(
        self, link: Link, channel: paramiko.Channel, on_close: Callable[[SshConnection], None]
    ) -> None:
        self._link = link
        self._channel = channel
        self._on_close = on_close
        self._pending = memoryview(b"")
        self._tail = b""
        self._tail_lock = threading.Lock()
        self._closed = False

    @property
    def node(self) -> str:
        """The node's name."""
        return self._link.target.node

    def send(self, data: bytes) -> None:
        """Writes all of `data` to the command's standard input.

        Raises:
            NodeLost: the connection broke, or was closed here.
        """
        view = memoryview(data)
        try:
            # paramiko copies what is left after each packet: small pieces keep that cheap.
            for start in range(0, len(view), _SEND_BYTES):
                self._channel.sendall(bytes(view[start : start + _SEND_BYTES]))
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost(error) from None
        if not self._link.client.is_active():
            raise self._lost()

    def receive(self, max_bytes: int) -> bytes | memoryview:
        """Returns the next bytes of its standard output, at least one; b"" at its end.

        Raises:
            NodeLost: the connection broke, or was closed here.
        """
        if self._closed:
            raise self._lost()
        if not self._pending:
            self._pending = memoryview(self._take())
        piece, self._pending = self._pending[:max_bytes], self._pending[max_bytes:]
        return piece

    def _take(self) -> bytes:
        try:
            # All that is there at once: what is left in the buffer is copied at each read.
            data = self._channel.recv(WINDOW_BYTES)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost(error) from None
        self._drain_stderr()
        if self._closed:
            raise self._lost()
        # A server may leave out the end mark where the command's status says as much.
        if not data and not self._channel.eof_received and self._channel.exit_status < 0:
            raise self._lost()
        return data

    def exit_status(self, timeout_s: float) -> int | None:
        """Returns how the command ended; None where that is not known, or a signal ended it."""
        self._channel.status_event.wait(timeout_s)
        status = self._channel.exit_status
        return None if status < 0 else status

    def stderr_tail(self) -> str:
        """Returns the end (8 KiB) of what it wrote to its standard error so far."""
        self._drain_stderr()
        return self._tail.decode("utf-8", "replace")

    def close(self) -> None:
        """Ends the connection. What runs detached on the node goes on."""
        self._closed = True
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()
        self._link.close()
        self._on_close(self)

    def _drain_stderr(self) -> None:
        with self._tail_lock:
            while self._channel.recv_stderr_ready():
                self._tail = (self._tail + self._channel.recv_stderr(WINDOW_BYTES))[-_TAIL_BYTES:]

    def _lost(self, error: BaseException | None = None) -> NodeLost:
        if self._closed:
            return NodeLost("the SSH connection is not there: " + _CLOSED_HERE, node=self.node)
        words = self._link.client.last_words or str(error or "")
        return lost(self.node, words or "the other side hung up")


def window_bytes(connections: int) -> int:
    """Returns how far one of so many connections may run ahead of its reader.

    >>> window_bytes(1), window_bytes(16), window_bytes(1000)
    (4194304, 1048576, 131072)
    """
    share = ALL_WINDOWS_BYTES // max(1, connections)
    return max(LEAST_WINDOW_BYTES, min(WINDOW_BYTES, share))


def run_command(
    link: Link, argv: Sequence[str], timeout_s: float, window: int = WINDOW_BYTES
) -> paramiko.Channel:
    """Starts the one command of a link; `window` is how far it may run ahead of its reader, bytes.

    This is the one place that quotes: sshd hands the text to the user's login shell, and every
    word comes out of a POSIX shell as it went in.

    Raises:
        FlowlaunchError: the server does not run it.
    """
    try:
        channel = link.client.open_session(
            window_size=window, max_packet_size=PACKET_BYTES, timeout=timeout_s
        )
        # Nothing can have come before the command.
        channel.in_buffer = PieceBuffer()  # type: ignore[assignment]
        # Names of files that are no UTF-8 pass as the bytes that they are.
        channel.exec_command(shlex.join(argv).encode("utf-8", "surrogateescape"))
    except Exception as error:
        # Whatever paramiko lets through: `translate` is total.
        raise translate(error, link.target, Stage.COMMAND) from None
    link.client.set_keepalive(_KEEPALIVE_S)
    return channel
