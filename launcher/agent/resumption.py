"""The checkpoint that workers start from: put together of what is on the node and what is sent.

A file is known by its sha256. What the node published itself, or was sent for an earlier run, is
linked after its bytes were proven; only the rest is asked for. What was sent is kept by its hash
for the next run, until nobody has started from it for some days.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import glob
import os
import queue
import re
import shutil
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple, Union

from launcher.agent.checkpoints import MANIFEST, plain_name
from launcher.agent.files import FileDiffersError, FileStore, sha256_of
from launcher.agent.prepare import disk_problem
from launcher.wire import codec, events

DIRECTORY = "resume"
# What was sent for a run stays so long for the next one that starts from it.
KEEP_SENT_S = 3 * 24 * 3600.0
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class OfferedFile(NamedTuple):
    """One file of a checkpoint that is offered."""

    path: str
    size: int
    sha256: str


class Offer:
    """One checkpoint on its way into the run's directory."""

    def __init__(self, name: str, manifest: bytes) -> None:
        """Reads what is offered.

        Raises:
            WireError: it is no checkpoint, or a path in it leads out of it.
            OSError: the name is none.
        """
        self.name = plain_name(name)
        self.manifest = manifest
        self.files = _files_of(manifest)
        self.sizes = {file.sha256: file.size for file in self.files}
        self.missing: Set[str] = set()
        self.received = 0
        self.is_cancelled = False


class Resumption:
    """Takes the checkpoint that a run, or an attempt of it, is to start from."""

    def __init__(self, root: str, run_dir: str, emit: Callable[[events.Event], None]) -> None:
        """Prepares it; nothing is done before a checkpoint is offered.

        Args:
            root: flowlaunch's directory on this node.
            run_dir: where the run keeps everything on this node.
            emit: tells the launcher something, from the agent's own thread.
        """
        self._root = root
        self._run_dir = run_dir
        self._emit = emit
        self._store = FileStore(os.path.join(root, "checkpoints"))
        self._offer: Optional[Offer] = None
        self._thread: Optional[threading.Thread] = None
        self._looked: "queue.Queue[Tuple[Offer, Union[Set[str], OSError]]]" = queue.Queue()

    @property
    def is_pending(self) -> bool:
        """Whether a checkpoint was offered that does not stand yet."""
        return self._offer is not None

    def forget(self) -> None:
        """Takes no more of an offer: whoever made it is gone."""
        if self._offer is not None:
            self._offer.is_cancelled = True
            self._offer = None
        self._join()

    def _join(self) -> None:
        # Soon over; and no thread may live when workers are started.
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def offer(self, command: events.OfferCheckpoint) -> None:
        """Begins to look for what of a checkpoint is here already.

        Raises:
            WireError: it is no checkpoint.
        """
        self.forget()
        self._offer = Offer(command.name, command.data)
        self._thread = threading.Thread(
            target=self._look_for, args=(self._offer,), name="resumption", daemon=True
        )
        self._thread.start()

    def _look_for(self, offer: Offer) -> None:
        """Hashing takes its time: this is done beside the agent's loop."""
        try:
            self._drop_old_files(offer)
            self._looked.put((offer, self._link_all(offer)))
        except OSError as error:
            self._looked.put((offer, error))

    def _drop_old_files(self, offer: Offer) -> None:
        limit = time.time() - KEEP_SENT_S
        for path in glob.glob(os.path.join(self._root, "checkpoints", "*", "*")):
            try:
                if os.path.basename(path) not in offer.sizes and os.stat(path).st_mtime < limit:
                    os.unlink(path)
            except FileNotFoundError:
                continue  # another run's agent was quicker

    def _link_all(self, offer: Offer) -> Set[str]:
        """Links what is here and proven; returns the hashes that are missing."""
        arriving = self._arriving(offer)
        shutil.rmtree(arriving, ignore_errors=True)
        os.makedirs(arriving, mode=0o700)
        known = self._known_files(offer)
        proven: Dict[str, Optional[str]] = {}
        for file in offer.files:
            if offer.is_cancelled:
                break
            if file.sha256 not in proven:
                proven[file.sha256] = _first_proven(known[file.sha256], file, offer)
            source = proven[file.sha256]
            if source is not None:
                _link(source, os.path.join(arriving, file.path))
        return {sha256 for sha256, source in proven.items() if source is None}

    def _known_files(self, offer: Offer) -> Dict[str, List[str]]:
        """Returns where on this node files with the wanted hashes should be."""
        found = {sha256: [self._store.path(sha256)] for sha256 in offer.sizes}
        for where in glob.glob(os.path.join(self._root, "runs", "*", "*", "*", "step-*", MANIFEST)):
            for file in _published_files(where):
                if file.sha256 in found:
                    found[file.sha256].append(os.path.join(os.path.dirname(where), file.path))
        return found

    def put(self, piece: events.PutCheckpointFile) -> None:
        """Takes a piece of a file that was asked for.

        Raises:
            OSError: the disk does not take it.
        """
        offer = self._offer
        if offer is None or piece.sha256 not in offer.missing:
            return  # of an earlier offer, and on its way since then
        size = offer.sizes[piece.sha256]
        offer.received += len(piece.data)
        try:
            if self._store.put(piece.sha256, piece.offset, size, piece.data):
                self._take(offer, piece.sha256)
        except FileDiffersError:
            self.forget()
            self._emit(_differs(offer))

    def _take(self, offer: Offer, sha256: str) -> None:
        """A file is here whole."""
        offer.missing.discard(sha256)
        for file in offer.files:
            if file.sha256 == sha256:
                _link(self._store.path(sha256), os.path.join(self._arriving(offer), file.path))
        if not offer.missing:
            self._place(offer)

    def tick(self) -> None:
        """Goes on where the search for what is here has ended."""
        while not self._looked.empty():
            offer, result = self._looked.get()
            self._join()
            if not offer.is_cancelled:
                self._go_on(offer, result)

    def _go_on(self, offer: Offer, result: "Union[Set[str], OSError]") -> None:
        try:
            if isinstance(result, OSError):
                raise result
            offer.missing = result
            if result:
                self._emit(events.CheckpointWanted(offer.name, events.pack_json(sorted(result))))
            else:
                self._place(offer)
        except OSError as error:
            self.forget()
            self._emit(disk_problem(error).event)

    def _place(self, offer: Offer) -> None:
        arriving, final = self._arriving(offer), os.path.join(self._run_dir, DIRECTORY, offer.name)
        with open(os.path.join(arriving, MANIFEST), "wb") as file:
            file.write(offer.manifest)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(arriving, final)
        self._offer = None
        placed = "%s/%s" % (DIRECTORY, offer.name)
        self._emit(events.CheckpointPlaced(offer.name, placed, offer.received))

    def _arriving(self, offer: Offer) -> str:
        return os.path.join(self._run_dir, DIRECTORY, ".tmp-" + offer.name)


def _files_of(manifest: bytes) -> List[OfferedFile]:
    fields = events.unpack_json(manifest)
    try:
        return [_file_of(entry) for entry in fields["files"]]
    except (TypeError, KeyError, ValueError) as error:
        raise codec.WireError("no manifest of a checkpoint: %s" % error) from None


def _file_of(entry: Dict[str, Any]) -> OfferedFile:
    file = OfferedFile(str(entry["path"]), int(entry["bytes"]), str(entry["sha256"]))
    if any(part in ("", ".", "..") for part in file.path.split("/")):
        raise ValueError("path leads out of the checkpoint: %r" % file.path)
    if not _SHA256.match(file.sha256):
        raise ValueError("no sha256: %r" % file.sha256)
    return file


def _published_files(where: str) -> List[OfferedFile]:
    """Returns what a manifest on this disk lists, nothing where it cannot be read."""
    try:
        with open(where, "rb") as file:
            return _files_of(file.read())
    except (OSError, codec.WireError):
        return []


def _first_proven(paths: List[str], wanted: OfferedFile, offer: Offer) -> Optional[str]:
    """Returns the first of the files that really has the wanted bytes; None where none has."""
    for path in paths:
        try:
            if os.path.getsize(path) == wanted.size and _is(wanted, path, offer):
                os.utime(path)  # it was used, so it stays for a while
                return path
        except OSError:
            continue  # gone, or closed to us: then it is as if it was not there
    return None


def _is(wanted: OfferedFile, path: str, offer: Offer) -> bool:
    return sha256_of(path, lambda: offer.is_cancelled) == wanted.sha256


def _link(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)  # another disk, or one without links


def _differs(offer: Offer) -> events.NodeUnusable:
    return events.NodeUnusable(
        "checkpoint_differs",
        "a file of %s arrived with other bytes than its manifest says" % offer.name,
        "it was damaged since it was brought here; start from another one",
    )
