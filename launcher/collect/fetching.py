"""Single files on their way here: each once, by its hash, from the least busy node that has it.

A file is asked for in pieces, and what came of it stays: when its node is lost another one goes on
in the middle, and when a link is made anew so does the same one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO

from launcher.collect.pace import PIECE_BYTES, Budget, NodePace
from launcher.core.published import PublishedFile
from launcher.wire import events

Send = Callable[[str, events.Command], object]
Clock = Callable[[], float]
Key = tuple[str, int]

_BLOCK_BYTES = 1 << 20
# Of the files that wait, so many are looked at for one that a node with room has.
_LOOK_AHEAD = 64
_MAX_TRIES = 2
# The kernel is told to begin to write each so many bytes to the disk. It would wait for some
# seconds otherwise, and an fsync at the end for all of it.
_WRITE_OUT_BYTES = 8 << 20


@dataclass(frozen=True)
class Holder:
    """A node that has a file, and how it is asked for there (see `events.FetchFile`)."""

    node: str
    checkpoint: str
    path: str


@dataclass(frozen=True)
class Here:
    """A file is here, whole and proven; not yet synced to the disk."""

    key: Key
    path: Path


@dataclass(frozen=True)
class NotHere:
    """A file cannot be brought here from any node that has it."""

    key: Key
    node: str
    reason: str


Result = Here | NotHere


@dataclass
class _Fetch:
    """One file on its way.

    Attributes:
        received: how much of it is here, from its beginning on.
        written_out: how much of that the kernel was told to write to the disk.
        asked: how much of it was asked for.
        tries: how often it was begun.
    """

    file: PublishedFile
    target: Path
    holders: list[Holder]
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    sink: IO[bytes] | None = None
    received: int = 0
    written_out: int = 0
    asked: int = 0
    open_requests: int = 0
    holder: Holder | None = None
    tries: int = 1

    @property
    def key(self) -> Key:
        return key_of(self.file)


@dataclass
class _Request:
    """A piece of a file that a node was asked for."""

    fetch: _Fetch
    node: str
    offset: int
    size: int
    asked_at: float
    got: int = 0


def key_of(file: PublishedFile) -> Key:
    """Returns what a file is known by: its content."""
    return file.sha256, file.bytes


class Fetcher:
    """Brings files here. Methods return the files that are settled by what happened."""

    def __init__(
        self, send: Send, clock: Clock, staging: Path, bytes_per_s: float | None = None
    ) -> None:
        """Takes the ways out.

        Args:
            send: tells a node something.
            clock: monotonic seconds.
            staging: the directory that files arrive in, made when it is needed.
            bytes_per_s: at most so much comes in; None is without a bound.
        """
        self._send = send
        self._clock = clock
        self._staging = staging
        self._budget = Budget(bytes_per_s, now=clock())
        self._fetches: dict[Key, _Fetch] = {}
        self._unasked: dict[Key, _Fetch] = {}
        self._requests: dict[int, _Request] = {}
        self._paces: dict[str, NodePace] = {}
        self._absent: set[str] = set()
        self._numbers = 0

    def want(self, file: PublishedFile, holder: Holder) -> list[Result]:
        """Brings a file here that a node has, unless it is on its way already.

        Raises:
            OSError: this machine's disk does not take it.
        """
        fetch = self._fetches.get(key_of(file))
        if fetch is not None:
            if holder not in fetch.holders:
                fetch.holders.append(holder)
            return []
        self._staging.mkdir(exist_ok=True)
        fetch = _Fetch(file, self._staging / f"{file.sha256}-{file.bytes}", [holder])
        self._fetches[fetch.key] = self._unasked[fetch.key] = fetch
        self._take_up(fetch)
        if fetch.received == file.bytes:
            return self._finish(fetch)
        return []

    def _take_up(self, fetch: _Fetch) -> None:
        """Goes on with what a launcher that was killed had of a file."""
        with contextlib.suppress(FileNotFoundError), fetch.target.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                fetch.digest.update(block)
                fetch.received += len(block)
        if fetch.received > fetch.file.bytes:
            self._restart(fetch)
        fetch.asked = fetch.received
        if not fetch.file.bytes:
            fetch.target.touch()

    def abandon(self, key: Key) -> None:
        """Brings a file no more."""
        fetch = self._fetches.pop(key, None)
        self._unasked.pop(key, None)
        if fetch is None:
            return
        for number, request in list(self._requests.items()):
            if request.fetch is fetch:
                self._answered(number)
        _close(fetch)
        fetch.target.unlink(missing_ok=True)

    def pump(self) -> None:
        """Asks nodes for as much as they may be asked for now."""
        for fetch in list(islice(self._unasked.values(), _LOOK_AHEAD)):
            while fetch.asked < fetch.file.bytes:
                if not fetch.open_requests:
                    fetch.holder = self._least_busy(fetch)
                if fetch.holder is None or not self._ask(fetch, fetch.holder):
                    break
            else:
                self._unasked.pop(fetch.key, None)

    def _least_busy(self, fetch: _Fetch) -> Holder | None:
        present = [holder for holder in fetch.holders if holder.node not in self._absent]
        return min(present, key=lambda holder: self._pace(holder.node).asked_bytes, default=None)

    def _pace(self, node: str) -> NodePace:
        return self._paces.setdefault(node, NodePace())

    def _ask(self, fetch: _Fetch, holder: Holder) -> bool:
        pace, now = self._pace(holder.node), self._clock()
        size = min(PIECE_BYTES, fetch.file.bytes - fetch.asked, pace.room_bytes)
        if size == 0 or not self._budget.take(size, now):
            return False
        self._numbers += 1
        request = _Request(fetch, holder.node, fetch.asked, size, now)
        self._requests[self._numbers] = request
        fetch.asked += size
        fetch.open_requests += 1
        pace.on_asked(size)
        self._send(
            holder.node,
            events.FetchFile(
                self._numbers, holder.checkpoint, holder.path, request.offset, request.size
            ),
        )
        return True

    def on_chunk(self, event: events.FileChunk) -> list[Result]:
        """A piece of a file came, or a part of one.

        Raises:
            OSError: this machine's disk does not take it.
        """
        request = self._requests.get(event.request)
        if request is None or self._fetches.get(request.fetch.key) is not request.fetch:
            return []
        fetch = request.fetch
        expected = event.offset == request.offset + request.got == fetch.received
        if not expected or request.got + len(event.data) > request.size:
            reason = f"{fetch.file.path} is not of the size told"
            return self._leave_holder(fetch, request.node, reason, again=False)
        if fetch.sink is None:
            fetch.sink = fetch.target.open("ab", buffering=0)
        fetch.sink.write(event.data)
        fetch.digest.update(event.data)
        request.got += len(event.data)
        fetch.received += len(event.data)
        if fetch.received - fetch.written_out >= _WRITE_OUT_BYTES:
            _begin_to_write_out(fetch)
        # Not only at the piece's end: a node may die between the last byte and that word.
        return self._finish(fetch) if fetch.received == fetch.file.bytes else []

    def on_ended(self, event: events.FileEnded) -> list[Result]:
        """A piece is here, or cannot come.

        Raises:
            OSError: this machine's disk does not take it.
        """
        request = self._answered(event.request)
        if request is None:
            return []
        fetch = request.fetch
        if self._fetches.get(fetch.key) is not fetch:
            return []  # the last word on a file that is here already
        if event.error or request.got < request.size:
            said = event.error or f"{fetch.received} of {fetch.file.bytes} bytes came"
            return self._leave_holder(fetch, request.node, f"{fetch.file.path}: {said}")
        return []

    def _answered(self, number: int) -> _Request | None:
        request = self._requests.pop(number, None)
        if request is not None:
            request.fetch.open_requests -= 1
            delay_s = self._clock() - request.asked_at
            self._pace(request.node).on_answered(request.size, delay_s)
        return request

    def _finish(self, fetch: _Fetch) -> list[Result]:
        if fetch.sink is not None:
            _begin_to_write_out(fetch)
        _close(fetch)
        if fetch.digest.hexdigest() != fetch.file.sha256:
            node = fetch.holder.node if fetch.holder else ""
            self._restart(fetch)
            reason = f"{fetch.file.path}: its sha256 is not the one that was published"
            return self._leave_holder(fetch, node, reason)
        del self._fetches[fetch.key]
        self._unasked.pop(fetch.key, None)
        return [Here(fetch.key, fetch.target)]

    def _restart(self, fetch: _Fetch) -> None:
        _close(fetch)
        fetch.target.unlink(missing_ok=True)
        fetch.digest = hashlib.sha256()
        fetch.received = fetch.written_out = 0

    def _leave_holder(
        self, fetch: _Fetch, node: str, reason: str, *, again: bool = True
    ) -> list[Result]:
        """Goes on with another node, or with the same one once more; else gives the file up.

        What was damaged on the way is whole the next time; a node that lies is not asked again.
        """
        self._drop_requests(fetch)
        others = [holder for holder in fetch.holders if holder.node != node]
        if not others:
            fetch.tries += 1
            if fetch.tries > _MAX_TRIES or not again:
                self.abandon(fetch.key)
                return [NotHere(fetch.key, node, reason)]
        fetch.holders = others or fetch.holders
        return []

    def _drop_requests(self, fetch: _Fetch) -> None:
        """Awaits nothing more of what a file's node was asked for; it is asked again."""
        for number, request in list(self._requests.items()):
            if request.fetch is fetch:
                self._answered(number)
        fetch.asked = fetch.received
        fetch.holder = None
        if self._fetches.get(fetch.key) is fetch:
            self._unasked[fetch.key] = fetch

    def on_absent(self, node: str) -> None:
        """A node's link broke: what it was asked for is asked of others, or of it when it is back.

        What came so far stays.
        """
        self._absent.add(node)
        for request in list(self._requests.values()):
            if request.node == node:
                self._drop_requests(request.fetch)
        self._pace(node).forget()

    def on_present(self, node: str) -> None:
        """A node's link was made anew; what was asked over the old one will not come."""
        self.on_absent(node)
        self._absent.discard(node)

    def on_lost(self, node: str) -> list[Result]:
        """Nothing more comes from a node."""
        self.on_absent(node)
        results: list[Result] = []
        for fetch in list(self._fetches.values()):
            fetch.holders = [holder for holder in fetch.holders if holder.node != node]
            if not fetch.holders:
                self.abandon(fetch.key)
                reason = "the node was lost before all of it was here"
                results.append(NotHere(fetch.key, node, reason))
        return results

    def tidy(self) -> None:
        """Removes the directory that files arrive in, where nothing is on its way."""
        if not self._fetches:
            shutil.rmtree(self._staging, ignore_errors=True)

    def close(self) -> None:
        """Lets go of every file; what is not whole is removed."""
        for key in list(self._fetches):
            self.abandon(key)
        self.tidy()


def _begin_to_write_out(fetch: _Fetch) -> None:
    """Has the kernel begin to write what came, without waiting for it.

    That is what Linux makes of this advice for pages that are not on the disk yet.
    """
    if fetch.sink is not None and hasattr(os, "posix_fadvise"):
        size = fetch.received - fetch.written_out
        advice = os.POSIX_FADV_DONTNEED
        os.posix_fadvise(fetch.sink.fileno(), fetch.written_out, size, advice)
        fetch.written_out = fetch.received


def _close(fetch: _Fetch) -> None:
    if fetch.sink is not None:
        fetch.sink.close()
        fetch.sink = None
