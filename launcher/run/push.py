"""A checkpoint on its way from here to the nodes that start from it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from launcher.core.published import MANIFEST, PublishedFile
from launcher.core.state import NodeFailed
from launcher.store.checkpoints import KnownCheckpoint, read_checkpoint
from launcher.wire import events

_PIECE_BYTES = 1 << 20
_JOIN_S = 5.0

Send = Callable[[str, events.Command], bool]
Fail = Callable[[str, NodeFailed], None]


class CheckpointPush:
    """Sends each node the files of a checkpoint that it lacks; many nodes at the same time.

    A node is offered the manifest first and answers with the hashes that it has not
    (`CheckpointWanted`); once everything stands there, proven, it says so (`CheckpointPlaced`).
    An offer to a node that was offered something before takes its place.
    """

    def __init__(self, send: Send, fail: Fail) -> None:
        """Takes the way to tell a node something, and what is told where it cannot be done.

        Args:
            send: sends a command, from any thread; False where the node cannot be reached.
            fail: takes a node's failure, from any thread.
        """
        self._send = send
        self._fail = fail
        self._offered: dict[str, KnownCheckpoint] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._closing = threading.Event()

    def offer(self, node: str, directory: Path) -> events.OfferCheckpoint:
        """Returns the command that offers a checkpoint of this machine to a node.

        Raises:
            StoreError: the checkpoint cannot be read here.
        """
        checkpoint = self._offered[node] = read_checkpoint(directory)
        data = (checkpoint.directory / MANIFEST).read_bytes()
        return events.OfferCheckpoint(checkpoint.directory.name, data)

    def on_wanted(self, node: str, event: events.CheckpointWanted) -> None:
        """A node lacks these files: begins to send them, beside whatever else goes on."""
        checkpoint = self._offered.get(node)
        if checkpoint is None or checkpoint.directory.name != event.name:
            return
        wanted = set(events.unpack_json(event.data))
        files = {file.sha256: file for file in checkpoint.published.files if file.sha256 in wanted}
        thread = threading.Thread(
            target=self._send_all,
            args=(node, checkpoint, list(files.values()), self._threads.get(node)),
            name=f"push to {node}",
            daemon=True,
        )
        self._threads[node] = thread
        thread.start()

    def _send_all(
        self,
        node: str,
        checkpoint: KnownCheckpoint,
        files: list[PublishedFile],
        earlier: threading.Thread | None,
    ) -> None:
        if earlier is not None:
            # Pieces of two offers must not mix.
            earlier.join()
        try:
            for file in files:
                self._send_file(node, checkpoint, file)
        except OSError as error:
            where = error.filename or checkpoint.directory
            self._fail(
                node,
                NodeFailed(
                    f"{where}, which the workers are to start from, cannot be read: "
                    f"{error.strerror or error}",
                    "start from another checkpoint",
                ),
            )

    def _send_file(self, node: str, checkpoint: KnownCheckpoint, file: PublishedFile) -> None:
        offset = 0
        with (checkpoint.directory / file.path).open("rb") as source:
            # An empty file is one empty piece.
            while self._is_wanted(node, checkpoint):
                piece = source.read(min(_PIECE_BYTES, file.bytes - offset))
                if not piece and file.bytes:
                    raise OSError(0, f"{file.bytes - offset} bytes of it are gone", source.name)
                if not self._send(node, events.PutCheckpointFile(file.sha256, offset, piece)):
                    return
                offset += len(piece)
                if offset >= file.bytes:
                    return

    def _is_wanted(self, node: str, checkpoint: KnownCheckpoint) -> bool:
        return not self._closing.is_set() and self._offered.get(node) is checkpoint

    def close(self) -> None:
        """Sends nothing more. Whoever waits for a node must have closed its link before."""
        self._closing.set()
        for thread in self._threads.values():
            thread.join(_JOIN_S)
