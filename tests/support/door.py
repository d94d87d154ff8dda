"""A TCP server that does one scripted thing to whoever connects."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Act = Callable[[socket.socket], None]


@dataclass
class Door:
    """Where it listens, and how often somebody came."""

    port: int
    visits: int = 0
    _held: list[socket.socket] = field(default_factory=list)


@contextlib.contextmanager
def door(*acts: Act, backlog: int = 16) -> Iterator[Door]:
    """Does the acts to the visitors in turn, the last one to all that follow."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        found = Door(server.getsockname()[1])
        thread = threading.Thread(target=_serve, args=(server, acts, found))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for visitor in found._held:
                visitor.close()


def _serve(server: socket.socket, acts: tuple[Act, ...], found: Door) -> None:
    while True:
        try:
            visitor, _ = server.accept()
        except OSError:
            return
        act = acts[min(found.visits, len(acts) - 1)]
        found.visits += 1
        found._held.append(visitor)
        act(visitor)


def says(words: bytes) -> Act:
    """Says something and hangs up."""

    def act(visitor: socket.socket) -> None:
        with contextlib.suppress(OSError):
            visitor.sendall(words)
            visitor.shutdown(socket.SHUT_WR)

    return act


def stays_silent(visitor: socket.socket) -> None:
    """Says nothing and stays."""
    del visitor


def greets(words: bytes) -> Act:
    """Says something and stays."""
    return lambda visitor: visitor.sendall(words)


def resets(visitor: socket.socket) -> None:
    """Breaks the connection off."""
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    visitor.close()


def leads_to(port: int) -> Act:
    """Passes the bytes on to another port, both ways, until one side ends."""

    def act(visitor: socket.socket) -> None:
        inner = socket.create_connection(("127.0.0.1", port))
        for source, sink in ((visitor, inner), (inner, visitor)):
            threading.Thread(target=_pump, args=(source, sink)).start()

    return act


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
