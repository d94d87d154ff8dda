"""Directories on their way here: put together of files, then renamed whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from launcher.collect.fetching import Fetcher, Here, Holder, Key, NotHere, Result, key_of
from launcher.collect.known import KnownFiles
from launcher.core.published import PublishedFile
from launcher.store.atomic import sync

# What collecting leaves free on this machine's disk, for logs and for whoever else writes there.
RESERVE_BYTES = 64 << 20


@dataclass
class Arrival:
    """Files of one node that come here together.

    Attributes:
        node: who has them.
        what: how it is called in words.
        directory: where they are put together.
        place: where a file is asked for on the node, in the words of `events.FetchFile`.
        missing: the paths that are not here yet, by content.
        fetched: the files that came, which may not be on the disk yet.
        linked_bytes: so much was here before.
    """

    node: str
    what: str
    files: tuple[PublishedFile, ...]
    directory: Path
    place: Callable[[PublishedFile], Holder]
    missing: dict[Key, list[str]] = field(default_factory=dict)
    fetched: list[Path] = field(default_factory=list)
    linked_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """The size of all its files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Failed:
    """An arrival will not be whole; nothing of it is left here."""

    arrival: Arrival
    reason: str


Settled = Arrival | Failed


class Arrivals:
    """Puts arrivals together. Methods return those that are settled by what happened.

    An arrival that is returned whole stands in its `directory`, every byte and name on the disk.
    """

    def __init__(self, fetcher: Fetcher, known: KnownFiles) -> None:
        """Takes what brings files here and what knows those that are here."""
        self._fetcher = fetcher
        self._known = known
        self._open: list[Arrival] = []

    def begin(self, arrival: Arrival) -> list[Settled]:
        """Links what of it is here and brings the rest."""
        self._open.append(arrival)
        try:
            _require_space(arrival)
            shutil.rmtree(arrival.directory, ignore_errors=True)
            arrival.directory.mkdir(parents=True)
            wanted = [file for file in arrival.files if not self._link_known(arrival, file)]
            # All are missed before the first is asked for, which may be here at once: else the
            # arrival would be whole with what was looked at so far.
            for file in wanted:
                arrival.missing.setdefault(key_of(file), []).append(file.path)
            settled: list[Settled] = []
            for file in wanted:
                if arrival in self._open and key_of(file) in arrival.missing:
                    settled += self.take(self._fetcher.want(file, arrival.place(file)))
            if arrival in self._open and not arrival.missing:
                settled += self._complete(arrival)
            self._fetcher.pump()
        except OSError as error:
            return [self.fail(arrival, _words(error))]
        return settled

    def _link_known(self, arrival: Arrival, file: PublishedFile) -> bool:
        known = self._known.find(file)
        if known is None or not _link(known, arrival.directory / file.path):
            return False
        arrival.linked_bytes += file.bytes
        return True

    def add_holder(self, arrival: Arrival, place: Callable[[PublishedFile], Holder]) -> None:
        """Another node has the same files too."""
        for file in arrival.files:
            if key_of(file) in arrival.missing:
                self._fetcher.want(file, place(file))
        self._fetcher.pump()

    def take(self, results: list[Result]) -> list[Settled]:
        """Takes files that came, or will not come."""
        settled: list[Settled] = []
        for result in results:
            concerned = [arrival for arrival in self._open if result.key in arrival.missing]
            for arrival in concerned:
                settled += self._take_one(arrival, result)
            if isinstance(result, Here):
                result.path.unlink(missing_ok=True)
        self._fetcher.pump()
        return settled

    def _take_one(self, arrival: Arrival, result: Result) -> list[Settled]:
        if isinstance(result, NotHere):
            return [self.fail(arrival, result.reason)]
        try:
            for path in arrival.missing.pop(result.key):
                target = arrival.directory / path
                if not _link(result.path, target):
                    shutil.copyfile(result.path, target)
                arrival.fetched.append(target)
            return [] if arrival.missing else self._complete(arrival)
        except OSError as error:
            return [self.fail(arrival, _words(error))]

    def _complete(self, arrival: Arrival) -> list[Settled]:
        for path in arrival.fetched:
            sync(path)
        for directory, _, _ in os.walk(arrival.directory):
            sync(Path(directory))
        self._open.remove(arrival)
        return [arrival]

    def fail(self, arrival: Arrival, reason: str) -> Failed:
        """Gives an arrival up."""
        if arrival in self._open:
            self._open.remove(arrival)
        for key in arrival.missing:
            if not any(key in other.missing for other in self._open):
                self._fetcher.abandon(key)
        shutil.rmtree(arrival.directory, ignore_errors=True)
        return Failed(arrival, reason)

    def fail_writing(self, error: OSError) -> list[Settled]:
        """This machine's disk took no more: nothing that is on its way can come."""
        return [self.fail(arrival, _words(error)) for arrival in list(self._open)]


def _require_space(arrival: Arrival) -> None:
    arrival.directory.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(arrival.directory.parent).free
    if free < arrival.total_bytes + RESERVE_BYTES:
        raise OSError(
            0,
            f"this machine's disk has {free >> 20} MB free, "
            f"and it takes {(arrival.total_bytes + RESERVE_BYTES) >> 20} MB",
        )


def _words(error: OSError) -> str:
    return error.strerror or str(error)


def _link(source: Path, target: Path) -> bool:
    """Puts a file in a second place without copying; False where that cannot be done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        # Not every file system has links, and none has them without end.
        return False
    return True
