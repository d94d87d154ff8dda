"""Bringing one node up and hearing it out: a thread a node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from launcher.core.model import NodeSpec, TransportKind
from launcher.core.state import AnyEvent, LinkLost, NodeConnected, NodeFailed
from launcher.errors import FlowlaunchError, NodeError
from launcher.run.inbox import Inbox
from launcher.run.link import NodeLink, open_link
from launcher.store.job_folder import JobFolder
from launcher.transport.base import Transport
from launcher.wire import codec, events, order

CONNECT_TIMEOUT_S = 20.0
_PIECE_BYTES = 1 << 20

Transports = Mapping[TransportKind, Transport]


def new_inbox() -> Inbox:
    """Returns the one queue that every node's events go to."""
    return Inbox()


class NodeDriver:
    """One node: its link while there is one, and the thread that reads it.

    Attributes:
        heard_at: when the node said something last, monotonic seconds.
    """

    def __init__(
        self,
        node: NodeSpec,
        transport: Transport,
        inbox: Inbox,
        converse: Callable[[NodeLink], None],
    ) -> None:
        """Prepares the driver of one node.

        Args:
            node: the node.
            transport: the way there.
            inbox: where its events go.
            converse: sends the first commands once the link stands.
        """
        self.node = node
        self._transport = transport
        self._inbox = inbox
        self._converse = converse
        self._link: NodeLink | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.heard_at = time.monotonic()
        self._run_id = ""
        self._folder: JobFolder | None = None
        self._thread = threading.Thread(target=self._drive, name=f"node {node.name}", daemon=True)

    def start(self, run_id: str, folder: JobFolder | None) -> None:
        """Connects in the background; the job's folder is what the node may ask files of."""
        self._run_id = run_id
        self._folder = folder
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

    def close(self) -> None:
        """Ends the conversation, or the attempt at one."""
        with self._lock:
            self._closed = True
            link = self._link
        if link is not None:
            link.close()

    @property
    def is_alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Waits for the thread's end."""
        self._thread.join(timeout_s)

    def _put(self, event: AnyEvent) -> None:
        self._inbox.put((self.node.name, event))

    def _drive(self) -> None:
        try:
            link = open_link(
                self._transport,
                self.node,
                self._run_id,
                mode="start",
                timeout_s=CONNECT_TIMEOUT_S,
            )
        except NodeError as error:
            self._put(NodeFailed(error.message, error.hint))
            return
        with self._lock:
            self._link = link
            if self._closed:
                link.close()
        try:
            self._put(NodeConnected())
            self._converse(link)
            for message in link.events():
                self._on_message(link, message)
            reason = "the agent ended the conversation"
        except FlowlaunchError as error:
            reason = error.message
        except OSError as error:
            # A file of the job's folder that is gone, or closed to us, since it was hashed.
            reason = f"{error.filename or 'the job folder'}: {error.strerror or error}"
        except codec.WireError as error:
            reason = f"the agent sent what no agent of this version sends: {error}"
        self._link = None
        link.close()
        self._put(LinkLost(reason))

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
) -> Callable[[NodeLink], None]:
    """Returns what opens the conversation of a run with one node.

    Args:
        node_order: what the node is to prepare.
        lease_s: how long workers live on without their launcher.
        offer: the checkpoint that they start from; the node is not prepared before it has it.
    """

    def converse(link: NodeLink) -> None:
        link.send(events.Hello(events.VERSION, lease_s))
        if offer is not None:
            link.send(offer)
        link.send(events.PrepareRun(order.pack(node_order)))

    return converse
