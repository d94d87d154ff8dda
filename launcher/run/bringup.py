"""Bringing one node up and hearing it out: a thread a node."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Mapping

from launcher.core.model import NodeSpec, TransportKind
from launcher.core.state import (
    AgentGone,
    AnyEvent,
    LinkDropped,
    LinkLost,
    LinkRestored,
    NodeConnected,
    NodeFailed,
)
from launcher.errors import FlowlaunchError, NodeError, ProtocolError
from launcher.run.inbox import Inbox
from launcher.run.link import NodeLink, open_link
from launcher.store.job_folder import JobFolder
from launcher.transport.base import Transport
from launcher.wire import codec, events, order

CONNECT_TIMEOUT_S = 20.0
# A broken link is tried anew after the first of these, then after twice as long, up to the last.
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 5.0
# A try that falls into a network which is down must not outlast the network's return by much.
FIRST_TRY_S = 2.0
_PIECE_BYTES = 1 << 20

Transports = Mapping[TransportKind, Transport]
Converse = Callable[[NodeLink], None]


def new_inbox() -> Inbox:
    """Returns the one queue that every node's events go to."""
    return Inbox()


class Mode(enum.Enum):
    """How a driver finds the run's agent on its node (see `launcher.agent.__main__`)."""

    START = "start"
    ATTACH = "attach"
    SUCCEED = "succeed"
    VISIT = "visit"


class NodeDriver:
    """One node: its link while there is one, and the thread that reads it.

    A link that breaks is made anew for as long as `patience_s`: the agent goes on meanwhile.

    Attributes:
        heard_at: when the node said something last, monotonic seconds.
        linked_at: when the present link was made, or the last one.
    """

    def __init__(
        self,
        node: NodeSpec,
        transport: Transport,
        inbox: Inbox,
        converse: Converse,
        *,
        patience_s: float = 0.0,
    ) -> None:
        """Prepares the driver of one node.

        Args:
            node: the node.
            transport: the way there.
            inbox: where its events go.
            converse: sends the first commands once the first link stands.
            patience_s: how long a broken link is tried to be made anew; 0 is not at all.
        """
        self.node = node
        self._transport = transport
        self._inbox = inbox
        self._converse = converse
        self._patience_s = patience_s
        self._link: NodeLink | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.heard_at = self.linked_at = time.monotonic()
        self._dropped_for = ""
        self._run_id = ""
        self._folder: JobFolder | None = None
        self._thread: threading.Thread | None = None

    def start(self, run_id: str, folder: JobFolder | None, mode: Mode = Mode.START) -> None:
        """Connects in the background, once in a driver's life.

        Args:
            run_id: the run.
            folder: the job's folder, which the node may ask files of.
            mode: how the agent is found.
        """
        self._run_id = run_id
        self._folder = folder
        self._thread = threading.Thread(
            target=self._drive, args=(mode,), name=f"node {self.node.name}", daemon=True
        )
        self._thread.start()

    def send(self, command: events.Command) -> bool:
        """Sends a command; returns whether there was somebody to send it to."""
        link = self._link
        if link is None:
            return False
        try:
            link.send(command)
        except NodeError:
            # The thread that reads notices the same, and says so in order.
            return False
        return True

    @property
    def is_linked(self) -> bool:
        """Whether a conversation is open."""
        return self._link is not None

    def drop(self, reason: str = "") -> None:
        """Ends a link that seems dead; another one is made."""
        link = self._link
        if link is not None:
            self._dropped_for = reason
            link.close()

    def close(self) -> None:
        """Ends the conversation, or the attempt at one."""
        with self._lock:
            self._closing.set()
        self.drop()

    @property
    def is_alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Waits for the thread's end."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _put(self, event: AnyEvent) -> None:
        self._inbox.put((self.node.name, event))

    def _drive(self, mode: Mode) -> None:
        link = self._open_first(mode)
        converse, is_new = self._converse, mode is Mode.START
        while link is not None:
            end = self._talk(link, converse, is_new=is_new)
            if isinstance(end, AgentGone) and mode is Mode.SUCCEED:
                end = LinkLost(f"nothing can follow its agent: {end.message}")
            self._put(end)
            if not isinstance(end, LinkDropped):
                return
            link = self._open_again(Mode.ATTACH, end.message)
            converse, is_new = say_hello(self._patience_s), False

    def _open_first(self, mode: Mode) -> NodeLink | None:
        try:
            link = self._open(mode, CONNECT_TIMEOUT_S)
        except NodeError as error:
            if mode is Mode.START or self._patience_s == 0:
                self._put(NodeFailed(error.message, error.hint))
                return None
            self._put(LinkDropped(error.message))
            return self._open_again(mode, error.message)
        if mode is Mode.START:
            self._put(NodeConnected())
        return link

    def _open_again(self, mode: Mode, reason: str) -> NodeLink | None:
        """Makes the link anew; gives up, with a last word, when the agent's lease must be over."""
        deadline = self.heard_at + self._patience_s
        if self.heard_at < self.linked_at and time.monotonic() > deadline:
            # There is a link again and again, and never a word: a stopped agent.
            self._put(LinkLost(reason))
            return None
        pause_s = FIRST_PAUSE_S
        while not self._closing.wait(pause_s):
            try:
                link = self._open(mode, min(CONNECT_TIMEOUT_S, 10 * pause_s + FIRST_TRY_S))
            except NodeError as error:
                reason = error.message
            else:
                return link
            if time.monotonic() > deadline:
                break
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
        self._put(LinkLost(reason))
        return None

    def _open(self, mode: Mode, timeout_s: float) -> NodeLink:
        link = open_link(
            self._transport, self.node, self._run_id, mode=mode.value, timeout_s=timeout_s
        )
        with self._lock:
            self._link = link
            self._dropped_for = ""
            if self._closing.is_set():
                link.close()
        self.linked_at = time.monotonic()
        return link

    def _talk(
        self, link: NodeLink, converse: Converse, *, is_new: bool
    ) -> LinkLost | LinkDropped | AgentGone:
        """Hears the node out; returns how the conversation ended."""
        try:
            converse(link)
            end = self._hear(link, is_new)
        except ProtocolError as error:
            end = LinkLost(error.message)
        except FlowlaunchError as error:
            end = LinkDropped(self._dropped_for or error.message)
        except OSError as error:
            # A file of the job's folder that is gone, or closed to us, since it was hashed.
            end = LinkLost(f"{error.filename or 'the job folder'}: {error.strerror or error}")
        except codec.WireError as error:
            end = LinkLost(f"the agent sent what no agent of this version sends: {error}")
        self._link = None
        link.close()
        if isinstance(end, LinkDropped) and (self._patience_s == 0 or self._closing.is_set()):
            return LinkLost(end.message)
        return end

    def _hear(self, link: NodeLink, is_new: bool) -> LinkLost | LinkDropped | AgentGone:
        for message in link.events():
            if isinstance(message, events.NodeUnusable) and message.problem == events.GONE:
                return AgentGone(message.message)
            if self.heard_at < self.linked_at and not is_new:
                self._put(LinkRestored())
            self._on_message(link, message)
            if isinstance(message, events.RunEnded):
                return LinkLost("the run has ended there")
        return LinkDropped("the connection ended")

    def _on_message(self, link: NodeLink, message: events.Message) -> None:
        self.heard_at = time.monotonic()
        if isinstance(message, events.FilesWanted) and self._folder is not None:
            for sha256 in events.unpack_json(message.data):
                _put_file(link, self._folder, sha256)
        else:
            self._put(message)


def _put_file(link: NodeLink, folder: JobFolder, sha256: str) -> None:
    path = folder.path_of(sha256)
    size = path.stat().st_size
    offset = 0
    with path.open("rb") as file:
        while True:
            piece = file.read(_PIECE_BYTES)
            link.send(events.PutFile(sha256, offset, size, piece))
            offset += len(piece)
            if offset >= size or not piece:
                return


def first_commands(
    node_order: order.NodeOrder, lease_s: float, offer: events.OfferCheckpoint | None = None
) -> Converse:
    """Returns what opens the conversation of a run with one node.

    Args:
        node_order: what the node is to prepare.
        lease_s: how long workers live on without their launcher.
        offer: the checkpoint that they start from; the node is not prepared before it has it.
    """

    def converse(link: NodeLink) -> None:
        link.send(events.Hello(events.VERSION, lease_s))
        for command in preparation(node_order, offer):
            link.send(command)

    return converse


def preparation(
    node_order: order.NodeOrder, offer: events.OfferCheckpoint | None
) -> list[events.Command]:
    """Returns what has a node prepared for an attempt."""
    prepare = events.PrepareRun(order.pack(node_order))
    return [prepare] if offer is None else [offer, prepare]


def say_hello(lease_s: float) -> Converse:
    """Returns what opens every later conversation with the agent of a run."""
    return lambda link: link.send(events.Hello(events.VERSION, lease_s))
