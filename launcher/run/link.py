"""The launcher's side of the talk with one node's agent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

from launcher.agent.boot import MARK
from launcher.core.model import NodeSpec, TransportKind
from launcher.errors import NodeLost, NodeNotReady, ProtocolError
from launcher.run.agent_package import agent_package, boot_command
from launcher.transport.base import Connection, Transport
from launcher.wire import codec, events

DEFAULT_ROOT = "~/.flowlaunch"
# What start-up files of a login shell may print before the agent speaks.
MAX_NOISE_BYTES = 1 << 20
RECEIVE_BYTES = 1 << 20
_NOT_FOUND = (126, 127)


class NodeLink:
    """Commands to one agent, and its events."""

    def __init__(self, node: NodeSpec, connection: Connection, received: bytes) -> None:
        self.node = node
        self._connection = connection
        self._received = received
        self._sending = threading.Lock()

    def send(self, command: events.Command) -> None:
        """Sends one command; any thread may.

        Raises:
            NodeLost: the connection is gone.
        """
        data = events.encode(command)
        with self._sending:
            self._connection.send(data)

    def events(self) -> Iterator[events.Message]:
        """Yields what the agent sends, until it ends the conversation.

        Raises:
            NodeLost: the connection broke.
            ProtocolError: what comes is not the wire's vocabulary.
        """
        decoder = codec.Decoder()
        data: bytes | memoryview = self._received
        self._received = b""
        try:
            while True:
                for frame in decoder.feed(data):
                    yield events.decode(frame)
                data = self._connection.receive(RECEIVE_BYTES)
                if not data:
                    return
        except codec.WireError as error:
            raise ProtocolError(
                f"the agent sent what no agent of this version sends: {error}",
                node=self.node.name,
                hint="end older runs there, and look for programs that write into the login",
            ) from None

    def stderr_tail(self) -> str:
        """Returns the end of what the far side wrote to its standard error."""
        return self._connection.stderr_tail()

    def close(self) -> None:
        """Ends the conversation. The agent goes on within its lease."""
        self._connection.close()


def open_link(
    transport: Transport, node: NodeSpec, run_id: str, *, mode: str, timeout_s: float
) -> NodeLink:
    """Logs in, ships the agent if it is not there, and starts it or goes to the one of the run.

    Args:
        transport: the way to the node.
        node: the node.
        run_id: the run.
        mode: "start" or "attach".
        timeout_s: what the login may take.

    Raises:
        NodeError: one of its kinds says what is wrong with the node.
    """
    arguments = json.dumps({"mode": mode, "run_id": run_id, "node": node.name})
    command = boot_command(node.workdir or DEFAULT_ROOT, arguments)
    connection = transport.open(node, command, timeout_s=timeout_s)
    try:
        word, rest = _await_mark(connection, node)
        if word == "need":
            connection.send(agent_package().data)
        elif word != "have":
            raise NodeNotReady(
                f"the agent cannot start there: {word.partition(' ')[2] or word}",
                node=node.name,
                hint=f"it needs Python 3.7 or newer and a writable {node.workdir or DEFAULT_ROOT}",
            )
    except BaseException:
        connection.close()
        raise
    return NodeLink(node, connection, rest)


def _await_mark(connection: Connection, node: NodeSpec) -> tuple[str, bytes]:
    """Returns the agent's first word and what came behind it."""
    seen = b""
    while len(seen) < MAX_NOISE_BYTES:
        try:
            data = connection.receive(RECEIVE_BYTES)
        except NodeLost:
            data = b""
        if not data:
            raise _no_agent(connection, node, seen)
        seen += data
        _, mark, rest = seen.partition(MARK)
        if mark and b"\n" in rest:
            word, _, rest = rest.partition(b"\n")
            return word.decode("utf-8", "replace"), rest
    raise ProtocolError(
        f"the login printed {len(seen)} bytes and did not start the agent",
        node=node.name,
        hint="let the login shell's start-up files print less",
    )


def _no_agent(connection: Connection, node: NodeSpec, seen: bytes) -> NodeNotReady:
    status = connection.exit_status(2.0)
    said = (connection.stderr_tail() or seen.decode("utf-8", "replace")).strip()
    last = said.splitlines()[-1] if said else "it said nothing"
    if status in _NOT_FOUND:
        return NodeNotReady(
            f"no Python was found there: {last}",
            node=node.name,
            hint="install python3 (3.7 or newer) on that machine",
        )
    where = "here" if node.transport is TransportKind.LOCAL else "by the login shell"
    return NodeNotReady(
        f"the agent's start was ended {where} with status {status}: {last}",
        node=node.name,
        hint="try `ssh` to that machine with a command, e.g. `ssh HOST python3 --version`",
    )
