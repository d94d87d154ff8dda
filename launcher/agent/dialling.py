"""The real path between nodes, tried as workers would use it: ports bound here, dialled from there.

Who dials a port is greeted with words that only the agent meant can know, so that an address that
leads to another machine is told from a firewall. Every connection is reset, not closed: an orderly
end would leave the port in TIME_WAIT, where the workers could not bind it for a minute.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import errno
import os
import resource
import selectors
import socket
import struct
import threading
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from launcher.agent.ports import choose_free, holder
from launcher.wire import events

# How a dial went. Anything else is the system's own name of an error, such as EPERM.
ANSWERED = "ok"
REFUSED = "refused"
NO_ANSWER = "timeout"
UNREACHABLE = "unreachable"
# Connected, but what answers is not the agent that was meant.
STRANGER = "stranger"

_WORDS = {
    errno.ECONNREFUSED: REFUSED,
    errno.ETIMEDOUT: NO_ANSWER,
    errno.EHOSTUNREACH: UNREACHABLE,
    errno.ENETUNREACH: UNREACHABLE,
}
_MOST_AT_ONCE = 512
_BACKLOG = 1024
_RESET = struct.pack("ii", 1, 0)


class Target(NamedTuple):
    """What to dial, and what is said there."""

    address: str
    port: int
    greeting: str


class Doors:
    """Ports that listen until they are closed, and greet whoever comes.

    Attributes:
        bound: those of the ports asked for that could be had.
        free: those that were chosen here.
        taken: who has each of the others, "" where that is hidden.
    """

    def __init__(self, ports: Sequence[int], free: int, greeting: str) -> None:
        """Binds the ports, on every address as OneFlow does.

        Raises:
            OSError: there are not so many free ports.
        """
        self.bound: List[int] = []
        self.free: List[int] = []
        self.taken: Dict[int, str] = {}
        self._greeting = greeting.encode("utf-8")
        self._selector = selectors.DefaultSelector()
        self._wake_end, self._wake = os.pipe()
        self._selector.register(self._wake_end, selectors.EVENT_READ)
        for port in ports:
            problem = self._open(port, self.bound)
            if problem is not None:
                self.taken[port] = holder(port) or os.strerror(problem.errno or 0)
        while len(self.free) < free:
            # One that somebody else took since it was found free is not one that a run needs.
            self._open(choose_free(), self.free)
        self._thread = threading.Thread(target=self._serve, name="doors", daemon=True)
        self._thread.start()

    def _open(self, port: int, kind: List[int]) -> Optional[OSError]:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Lets a port be had whose last connections are in TIME_WAIT; one that listens, it does not.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("0.0.0.0", port))  # noqa: S104 - as OneFlow binds it
            server.listen(_BACKLOG)
        except OSError as error:
            server.close()
            return error
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ, self._greet)
        kind.append(port)
        return None

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                key.data(key.fileobj)

    def _greet(self, server: socket.socket) -> None:
        try:
            visitor, _ = server.accept()
        except OSError:
            return
        _reset_at_close(visitor)
        visitor.setblocking(False)
        try:
            visitor.send(self._greeting)
        except OSError:
            visitor.close()
            return
        self._selector.register(visitor, selectors.EVENT_READ, self._see_off)

    def _see_off(self, visitor: socket.socket) -> None:
        self._selector.unregister(visitor)
        visitor.close()

    def close(self) -> None:
        """Lets go of every port, and waits for that."""
        os.write(self._wake, b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake)
        os.close(self._wake_end)


def open_doors(
    command: events.BindPorts, before: Optional[Doors]
) -> "tuple[Optional[Doors], events.Event]":
    """Opens the doors asked for, once the ones before are closed; returns them and the answer.

    Where no port is asked for, there are none any more.
    """
    if before is not None:
        before.close()
    wanted = events.unpack_json(command.data)
    if not wanted["ports"] and not wanted["free"]:
        return None, events.PortsBound(events.pack_json({"bound": [], "free": [], "taken": {}}))
    doors = Doors(**wanted)
    answer = {"bound": doors.bound, "free": doors.free, "taken": doors.taken}
    return doors, events.PortsBound(events.pack_json(answer))


def answer(command: events.DialPeers) -> events.PeersDialled:
    """Dials what the launcher names."""
    targets = [Target(*row) for row in events.unpack_json(command.data)]
    return events.PeersDialled(events.pack_json(dial_all(targets, command.timeout_s)))


def _reset_at_close(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def dial_all(targets: Sequence[Target], timeout_s: float) -> List[str]:
    """Dials every target and returns how each went, in their order.

    Args:
        targets: what to dial.
        timeout_s: what one dial may take; hundreds are under way at once.
    """
    return _Dialler(targets, timeout_s).dial()


class _Call(NamedTuple):
    """A dial under way."""

    place: int
    give_up_at: float


class _Dialler:
    """Many dials at once, on one thread."""

    def __init__(self, targets: Sequence[Target], timeout_s: float) -> None:
        self._targets = targets
        self._timeout_s = timeout_s
        self._words = [""] * len(targets)
        self._calls: "Dict[socket.socket, _Call]" = {}
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(8, min(_MOST_AT_ONCE, soft // 2))

    def dial(self) -> List[str]:
        waiting = iter(range(len(self._targets)))
        with selectors.DefaultSelector() as selector:
            while self._start_more(waiting, selector) or self._calls:
                for key, _ in selector.select(self._pause()):
                    self._advance(key, selector)
                self._give_up_late(selector)
        return self._words

    def _start_more(self, waiting: "Iterator[int]", selector: selectors.BaseSelector) -> bool:
        """Starts as many as may be under way; returns whether any is."""
        while len(self._calls) < self._most:
            index = next(waiting, None)
            if index is None:
                return False
            self._start(index, selector)
        return True

    def _start(self, index: int, selector: selectors.BaseSelector) -> None:
        caller = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        caller.setblocking(False)
        _reset_at_close(caller)
        target = self._targets[index]
        code = caller.connect_ex((target.address, target.port))
        if code not in (0, errno.EINPROGRESS):
            self._words[index] = _word(code)
            caller.close()
            return
        self._calls[caller] = _Call(index, time.monotonic() + self._timeout_s)
        selector.register(caller, selectors.EVENT_READ)

    def _pause(self) -> float:
        if not self._calls:
            return 0.0
        # Calls are begun in order, with one and the same patience: the first is the oldest.
        oldest = next(iter(self._calls.values()))
        return max(0.0, oldest.give_up_at - time.monotonic())

    def _advance(self, key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
        caller = key.fileobj
        assert isinstance(caller, socket.socket)
        greeting = self._targets[self._calls[caller].place].greeting.encode("utf-8")
        try:
            # A greeting is sent in one piece, of less than a segment.
            word = ANSWERED if caller.recv(len(greeting) + 1) == greeting else STRANGER
        except BlockingIOError:
            return
        except OSError as error:
            word = _word(error.errno or 0)
        self._end(caller, word, selector)

    def _give_up_late(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for caller, call in list(self._calls.items()):
            if call.give_up_at > now:
                return
            # One that connected and was told nothing reached something, but not an agent.
            self._end(caller, STRANGER if _is_connected(caller) else NO_ANSWER, selector)

    def _end(self, caller: socket.socket, word: str, selector: selectors.BaseSelector) -> None:
        self._words[self._calls.pop(caller).place] = word
        selector.unregister(caller)
        caller.close()


def _is_connected(caller: socket.socket) -> bool:
    try:
        caller.getpeername()
    except OSError:
        return False
    return True


def _word(code: int) -> str:
    return _WORDS.get(code) or errno.errorcode.get(code, str(code))
