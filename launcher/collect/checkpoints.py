"""Checkpoints on their way here: fetched while training goes on, proven, then renamed whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from launcher.core.paths import RunPaths
from launcher.core.published import MANIFEST, BadManifest, Published, PublishedFile, parse_published
from launcher.store.atomic import replace_json, sync_directory
from launcher.wire import events

Send = Callable[[str, events.Command], object]
# Files of one checkpoint that are asked for at the same time. flow.save makes two for each tensor,
# and both sides hold each of them open; this many keep the way there filled.
MAX_FETCHES = 16


@dataclass
class _Arriving:
    """A checkpoint of which some files are not here yet."""

    node: str
    name: str
    published: Published
    directory: Path
    missing: set[str] = field(default_factory=set)
    waiting: deque[PublishedFile] = field(default_factory=deque)
    linked_bytes: int = 0


@dataclass
class _Fetch:
    """One file on its way, with the hash of what came so far."""

    checkpoint: _Arriving
    file: PublishedFile
    target: IO[bytes]
    digest: hashlib._Hash
    received: int = 0
    again: bool = False


@dataclass(frozen=True)
class Stored:
    """A checkpoint is here, whole and proven."""

    node: str
    step: int
    bytes: int
    linked_bytes: int
    directory: Path


@dataclass(frozen=True)
class NotStored:
    """A published checkpoint cannot be brought here; `problem` says which, and why."""

    node: str
    step: int
    problem: str


Outcome = Stored | NotStored


class CheckpointCollector:
    """Brings every published checkpoint of a run here.

    A file whose sha256 is here already is linked instead of fetched.
    """

    def __init__(self, paths: RunPaths, send: Send) -> None:
        """Takes the run's paths and the way to tell a node something."""
        self._paths = paths
        self._send = send
        self._arriving: dict[int, _Arriving] = {}
        self._fetches: dict[int, _Fetch] = {}
        self._here: dict[str, Path] = {}
        self._requests = 0
        self._done: set[int] = set()

    @property
    def pending(self) -> int:
        """How many published checkpoints are not here yet."""
        return len(self._arriving)

    def on_published(self, node: str, event: events.CheckpointPublished) -> list[Outcome]:
        """A worker published one: begins to fetch what is not here."""
        step = event.step
        if step in self._arriving or step in self._done:
            return []
        try:
            published = parse_published(event.data)
            if published.step != step:
                raise BadManifest(f"it is of step {published.step}")
        except BadManifest as error:
            return [self._give_up(node, step, f"its manifest is refused: {error}")]
        directory = Path(self._paths.arriving(step))
        arriving = _Arriving(node, event.name, published, directory)
        self._arriving[step] = arriving
        try:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            return self._begin(arriving)
        except OSError as error:
            return [self._fail(arriving, error.strerror or str(error))]

    def _begin(self, arriving: _Arriving) -> list[Outcome]:
        for file in arriving.published.files:
            if self._link(arriving, file):
                arriving.linked_bytes += file.bytes
            else:
                arriving.missing.add(file.path)
                arriving.waiting.append(file)
        return self._go_on(arriving)

    def _go_on(self, arriving: _Arriving) -> list[Outcome]:
        """Asks for the next files, or ends where none is missing."""
        on_their_way = sum(fetch.checkpoint is arriving for fetch in self._fetches.values())
        for _ in range(min(MAX_FETCHES - on_their_way, len(arriving.waiting))):
            self._fetch(arriving, arriving.waiting.popleft())
        return self._finish(arriving) if not arriving.missing else []

    def _link(self, arriving: _Arriving, file: PublishedFile) -> bool:
        known = self._here.get(file.sha256)
        if known is None or not known.is_file():
            return False
        target = _parent_made(arriving.directory / file.path)
        try:
            os.link(known, target)
        except OSError:
            # Not every file system has links, and none has them without end.
            return False
        return True

    def _fetch(self, arriving: _Arriving, file: PublishedFile, *, again: bool = False) -> None:
        self._requests += 1
        target = _parent_made(arriving.directory / file.path).open("wb")
        self._fetches[self._requests] = _Fetch(
            arriving, file, target, hashlib.sha256(), again=again
        )
        request = events.FetchFile(self._requests, arriving.name, file.path, 0)
        self._send(arriving.node, request)

    def on_chunk(self, event: events.FileChunk) -> list[Outcome]:
        """A piece of a file came."""
        fetch = self._fetches.get(event.request)
        if fetch is None:
            return []
        fetch.received += len(event.data)
        if event.offset + len(event.data) != fetch.received or fetch.received > fetch.file.bytes:
            return [self._fail(fetch.checkpoint, f"{fetch.file.path} is not of the size told")]
        try:
            fetch.target.write(event.data)
        except OSError as error:
            return [self._fail(fetch.checkpoint, error.strerror or str(error))]
        fetch.digest.update(event.data)
        return []

    def on_ended(self, event: events.FileEnded) -> list[Outcome]:
        """A file's last piece came, or there is none."""
        fetch = self._fetches.pop(event.request, None)
        if fetch is None:
            return []
        arriving = fetch.checkpoint
        try:
            _close_synced(fetch.target)
            problem = event.error or _difference(fetch)
            if not problem:
                return self._take(fetch)
            if fetch.again:
                return [self._fail(arriving, problem)]
            # Once more: what was damaged on the way is whole the next time.
            self._fetch(arriving, fetch.file, again=True)
            return []
        except OSError as error:
            return [self._fail(arriving, error.strerror or str(error))]

    def _take(self, fetch: _Fetch) -> list[Outcome]:
        arriving = fetch.checkpoint
        arriving.missing.discard(fetch.file.path)
        return self._go_on(arriving)

    def _finish(self, arriving: _Arriving) -> list[Outcome]:
        step = arriving.published.step
        final = Path(self._paths.checkpoint(step))
        replace_json(arriving.directory / MANIFEST, _manifest(arriving))
        for directory, _, _ in os.walk(arriving.directory):
            sync_directory(Path(directory))
        arriving.directory.rename(final)
        sync_directory(final.parent)
        del self._arriving[step]
        self._done.add(step)
        self._here |= {file.sha256: final / file.path for file in arriving.published.files}
        total = arriving.published.total_bytes
        return [Stored(arriving.node, step, total, arriving.linked_bytes, final)]

    def on_node_lost(self, node: str) -> list[Outcome]:
        """Nothing more comes from a node."""
        return [
            self._fail(arriving, "the node was lost before all of it was here")
            for arriving in list(self._arriving.values())
            if arriving.node == node
        ]

    def _fail(self, arriving: _Arriving, reason: str) -> NotStored:
        step = arriving.published.step
        for request, fetch in list(self._fetches.items()):
            if fetch.checkpoint is arriving:
                del self._fetches[request]
                fetch.target.close()
        self._arriving.pop(step, None)
        shutil.rmtree(arriving.directory, ignore_errors=True)
        return self._give_up(arriving.node, step, reason)

    def _give_up(self, node: str, step: int, reason: str) -> NotStored:
        self._done.add(step)
        return NotStored(node, step, f"{node}: checkpoint of step {step}: {reason}")

    def close(self) -> None:
        """Lets go of every file; what is not whole is removed."""
        for arriving in list(self._arriving.values()):
            self._fail(arriving, "given up")


def _manifest(arriving: _Arriving) -> dict[str, object]:
    published = arriving.published
    files = [
        {"path": file.path, "bytes": file.bytes, "sha256": file.sha256, "node": arriving.node}
        for file in published.files
    ]
    return {"step": published.step, "meta": published.meta, "files": files}


def _parent_made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _close_synced(file: IO[bytes]) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())


def _difference(fetch: _Fetch) -> str:
    if fetch.received != fetch.file.bytes:
        return f"{fetch.file.path}: {fetch.received} of {fetch.file.bytes} bytes came"
    if fetch.digest.hexdigest() != fetch.file.sha256:
        return f"{fetch.file.path}: its sha256 is not the one that was published"
    return ""
