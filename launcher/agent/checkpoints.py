"""Published checkpoints of a node: announced with their manifest, served file by file."""

import json
import os
import re
import shutil
from typing import BinaryIO, Dict, List, Optional, Tuple

from launcher.agent.conversation import Conversation
from launcher.agent.link import CHUNK_BYTES
from launcher.wire import events
from launcher.wire.codec import MAX_PAYLOAD_BYTES

MANIFEST = "MANIFEST.json"
_PUBLISHED = re.compile(r"step-(\d{8,})(?:\.part-\d+\.attempt-\d+)?\Z")


class Serving:
    """A part of a file on its way to the launcher.

    Attributes:
        offset: where the next piece begins.
        sent: how many bytes were read so far.
    """

    def __init__(self, request: int, file: BinaryIO, offset: int, size: int) -> None:
        self.request = request
        self.offset = offset
        self.sent = 0
        self._file = file
        self._left = size
        file.seek(offset)

    def read(self, size: int) -> Tuple[int, bytes]:
        """Returns the next piece and its offset; b"" at the end."""
        data = self._file.read(min(size, self._left))
        at = self.offset
        self.offset += len(data)
        self.sent += len(data)
        self._left -= len(data)
        return at, data

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


class CheckpointShelf:
    """The directory that workers publish into, and the files of it that are being sent.

    Attributes:
        workdir: where files are that belong to no checkpoint, "" where none are served.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.workdir = ""
        self._serving: Dict[int, Serving] = {}

    def manifest(self, name: str) -> bytes:
        """Returns the MANIFEST.json of a published checkpoint.

        Raises:
            OSError: there is none, or it is larger than a message may be.
        """
        with open(os.path.join(self._directory, plain_name(name), MANIFEST), "rb") as file:
            data = file.read(MAX_PAYLOAD_BYTES + 1)
        if len(data) > MAX_PAYLOAD_BYTES:
            raise OSError("the manifest of %s is too large" % name)
        return data

    def announcement(self, rank: int, step: int, name: str) -> events.CheckpointPublished:
        """Returns what tells of a checkpoint; where its manifest cannot be read, the reason."""
        try:
            manifest = self.manifest(name)
        except OSError as error:
            manifest = events.pack_json({"error": str(error)})
        return events.CheckpointPublished(rank, step, name, manifest)

    def published(self) -> List[Tuple[str, int]]:
        """Returns names and steps of what is published, oldest first; parts are such too."""
        found = []
        names = os.listdir(self._directory) if os.path.isdir(self._directory) else []
        for name in names:
            match = _PUBLISHED.match(name)
            if match:
                found.append((int(match.group(1)), name))
        return [(name, step) for step, name in sorted(found)]

    def drop(self, name: str) -> None:
        """Removes a published checkpoint, and each part of it that is here.

        First goes its name, so that no half of it is ever seen.

        Raises:
            OSError: it cannot be removed.
        """
        plain_name(name)
        for known, _ in self.published():
            if known == name or known.startswith(name + ".part-"):
                going = os.path.join(self._directory, ".going-" + known)
                shutil.rmtree(going, ignore_errors=True)  # a drop that was killed, of a step anew
                os.rename(os.path.join(self._directory, known), going)
                shutil.rmtree(going, ignore_errors=True)

    def serve(self, ask: events.FetchFile) -> Optional[str]:
        """Begins to send a part of a file; returns why it cannot be sent, or None."""
        try:
            file = open(self._inside(ask.checkpoint, ask.path), "rb")
            self._serving[ask.request] = Serving(ask.request, file, ask.offset, ask.size)
        except OSError as error:
            return error.strerror or str(error)
        return None

    def _inside(self, checkpoint: str, path: str) -> str:
        if checkpoint or not self.workdir:
            top = os.path.join(self._directory, plain_name(checkpoint))
        else:
            top = self.workdir
        whole = os.path.realpath(os.path.join(top, path))
        if not whole.startswith(os.path.realpath(top) + os.sep):
            raise OSError("leads out of the checkpoint")
        return whole

    def next_piece(self, size: int) -> Optional[Tuple[Serving, int, bytes]]:
        """Returns the next piece of some file that is being sent, or None where none is.

        A file whose piece is empty has ended; it is not served any more.
        """
        for request, serving in list(self._serving.items()):
            offset, data = serving.read(size)
            if not data:
                serving.close()
                del self._serving[request]
            return serving, offset, data
        return None

    def send(self, conversation: Conversation) -> None:
        """Sends of what was asked for as much as the far side has room for."""
        while conversation.has_room:
            piece = self.next_piece(CHUNK_BYTES)
            if piece is None:
                return
            serving, offset, data = piece
            if data:
                conversation.emit(events.FileChunk(serving.request, offset, data))
            else:
                conversation.emit(events.FileEnded(serving.request, serving.sent, ""))
            conversation.flush()

    def forget_all(self) -> None:
        """Sends nothing more: whoever asked is gone."""
        for serving in self._serving.values():
            serving.close()
        self._serving.clear()


def plain_name(name: str) -> str:
    """Returns a checkpoint's name as it came.

    Raises:
        OSError: it would lead elsewhere than to a directory beside the others.
    """
    if name in ("", ".", "..") or "/" in name or name.startswith("."):
        raise OSError("no name of a checkpoint: %r" % name)
    return name


def published_in(line: bytes) -> Optional[Tuple[int, str]]:
    """Returns step and name if a worker's report line announces a checkpoint."""
    if b'"checkpoint"' not in line:
        return None
    try:
        fields = json.loads(line.decode("utf-8"))
        if fields["kind"] == "checkpoint":
            return int(fields["step"]), str(fields["name"])
    except (ValueError, KeyError, TypeError):
        pass  # a torn or foreign line announces nothing
    return None
