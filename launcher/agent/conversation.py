"""The agent's side of the talk with launchers: one at a time, the newest wins."""

import selectors
import socket
import time
from typing import Callable, Optional

from launcher.agent.link import CHUNK_BYTES, Link
from launcher.wire import codec, events

# Read no further ahead of a launcher that is slow to take what it gets.
HIGH_WATER_BYTES = 4 * CHUNK_BYTES


class Conversation:
    """Hands each command to `obey` and sends events, whichever launcher listens.

    Attributes:
        heard_at: when the last bytes of a launcher came, monotonic seconds.
        follows: it may be sent output: the first launcher at once, from the first byte on; a later
            one when it has said from where on, since bytes that were queued for the one before
            it are lost.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: Optional[socket.socket],
        obey: Callable[[events.Message], None],
    ) -> None:
        self._selector = selector
        self._listener = listener
        self._obey = obey
        self._link: Optional[Link] = None
        self._decoder = codec.Decoder()
        self.heard_at = time.monotonic()
        self.follows = True
        self._is_first = True
        if listener is not None:
            listener.setblocking(False)
            selector.register(listener, selectors.EVENT_READ, self._on_visitor)

    @property
    def is_open(self) -> bool:
        """Whether a launcher listens."""
        return self._link is not None

    @property
    def silent_s(self) -> float:
        """For how long no launcher has said anything, seconds."""
        return time.monotonic() - self.heard_at

    @property
    def has_room(self) -> bool:
        """Whether a launcher listens and has taken most of what it was sent."""
        return self._link is not None and self._link.pending_bytes < HIGH_WATER_BYTES

    def take(self, link: Link) -> None:
        """Goes on over this link; an older one is dropped."""
        self.drop()
        self._link = link
        self.follows, self._is_first = self._is_first, False
        self._decoder = codec.Decoder()
        self.heard_at = time.monotonic()
        self._selector.register(link.in_fd, selectors.EVENT_READ, self._on_bytes)

    def await_offsets(self) -> None:
        """Sends no output to the next launcher before it has said from where on."""
        self._is_first = False

    def drop(self) -> None:
        """Lets go of the link; what was queued on it is lost."""
        if self._link is None:
            return
        self._selector.unregister(self._link.in_fd)
        self._watch_writable(False)
        self._link.close()
        self._link = None

    def emit(self, event: events.Event) -> None:
        """Sends an event, to nobody where nobody listens."""
        if self._link is not None:
            for piece in events.frame_of(event):
                self._link.queue(piece)

    def flush(self) -> None:
        """Writes what the far side takes at once."""
        if self._link is None:
            return
        self._link.flush()
        if self._link.broken:
            self._hear_rest(self._link)
            self.drop()
        else:
            self._watch_writable(self._link.pending_bytes > 0)

    def close(self) -> None:
        """Waits until the far side has taken everything, then lets go of it."""
        if self._link is not None:
            self._link.flush_blocking()
            self.drop()

    def _watch_writable(self, wanted: bool) -> None:
        assert self._link is not None
        watched = self._link.out_fd in self._selector.get_map()
        if wanted and not watched:
            self._selector.register(self._link.out_fd, selectors.EVENT_WRITE, lambda mask: None)
        elif watched and not wanted:
            self._selector.unregister(self._link.out_fd)

    def _on_bytes(self, mask: int) -> None:
        assert self._link is not None
        data = self._link.read()
        if data is None:
            self.drop()
            return
        self._hear(data)

    def _hear_rest(self, link: Link) -> None:
        """Obeys what a launcher said before it went: "stop" may be the last of it."""
        data = link.read()
        while data and self._link is link:
            self._hear(data)
            data = link.read() if self._link is link else None

    def _hear(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        try:
            for frame in self._decoder.feed(data):
                self._obey(events.decode(frame))
        except codec.WireError as error:
            self._on_nonsense(error)

    def obey(self, command: events.Message) -> None:
        """Has a command obeyed that could not be when it came."""
        try:
            self._obey(command)
        except codec.WireError as error:
            self._on_nonsense(error)

    def _on_nonsense(self, error: codec.WireError) -> None:
        # Whoever speaks like that is no launcher of this version; the workers go on.
        self.emit(events.NodeUnusable("protocol", "the agent was told nonsense: %s" % error, ""))
        # Not `close`: it would wait for one that does not read, and nobody for the workers.
        if self._link is not None:
            self._link.flush()
        self.drop()

    def _on_visitor(self, mask: int) -> None:
        """A later launcher connects and brings its three descriptors."""
        assert self._listener is not None
        link = accept_link(self._listener)
        if link is not None:
            self.take(link)


def accept_link(listener: socket.socket) -> Optional[Link]:
    """Takes in one who knocks; returns the link that they bring, None where they bring none."""
    visitor, _ = listener.accept()
    with visitor:
        visitor.settimeout(2.0)
        try:
            _, ancillary, _, _ = visitor.recvmsg(16, socket.CMSG_SPACE(12))
        except OSError:
            return None
    fds = [fd for _, _, data in ancillary for fd in memoryview(data).cast("i")]
    return Link(*fds) if len(fds) == 3 else None
