"""What `--collect` names on its way here: each path in its place below the node's name."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from launcher.collect.arrivals import Arrival, Arrivals, Failed
from launcher.collect.fetching import Holder
from launcher.collect.known import KnownFiles
from launcher.core.paths import RunPaths
from launcher.core.published import BadManifest, PublishedFile, parse_files
from launcher.store.atomic import sync, write_whole
from launcher.store.verifying import collected_before
from launcher.wire import events


@dataclass(frozen=True)
class Gathered:
    """A path of a worker's working directory is here, whole and proven."""

    node: str
    path: str
    files: int
    bytes: int
    linked_bytes: int
    place: Path


@dataclass(frozen=True)
class NotGathered:
    """A path cannot be brought here; `problem` says which, and why."""

    node: str
    path: str
    problem: str


class PathGatherer:
    """Keeps the newest state of each path that a node told."""

    def __init__(self, paths: RunPaths, arrivals: Arrivals, known: KnownFiles) -> None:
        """Takes the run's paths, what puts files together, and what knows those that are here."""
        self._paths = paths
        self._arrivals = arrivals
        self._known = known
        self._arriving: dict[tuple[str, str], Arrival] = {}
        self._here = collected_before(paths)
        self._count = 0

    @property
    def pending(self) -> int:
        """How many paths were told that are not here yet."""
        return len(self._arriving)

    def begin(self, node: str, event: events.PathSettled) -> Arrival | NotGathered | None:
        """Returns what is to come here, None where it is here as it was told.

        A newer state of a path takes the place of an older one that is still on its way.
        """
        key = (node, event.path)
        try:
            files = parse_files(event.data)
            _require_inside(event.path, files)
        except BadManifest as error:
            return _not_gathered(*key, f"it cannot be collected: {error}")
        if self._here.get(key) == files:
            return None
        older = self._arriving.pop(key, None)
        if older is not None:
            if older.files == files:
                self._arriving[key] = older
                return None
            self._arrivals.fail(older, "it changed")
        self._count += 1
        arrival = Arrival(
            node=node,
            what=event.path,
            files=files,
            directory=Path(self._paths.collected) / f".arriving-{self._count}",
            place=lambda file: Holder(node, "", file.path),
        )
        self._arriving[key] = arrival
        return arrival

    def owns(self, arrival: Arrival) -> bool:
        """Says whether an arrival is one of this gatherer's."""
        return any(known is arrival for known in self._arriving.values())

    def settle(self, settled: Arrival | Failed) -> Gathered | NotGathered:
        """Puts what has come in its place."""
        arrival = settled.arrival if isinstance(settled, Failed) else settled
        key = next(key for key, known in self._arriving.items() if known is arrival)
        del self._arriving[key]
        if isinstance(settled, Failed):
            return _not_gathered(*key, settled.reason)
        try:
            return self._put_in_place(*key, arrival)
        except OSError as error:
            reason = self._arrivals.fail(arrival, error.strerror or str(error)).reason
            return _not_gathered(*key, reason)

    def _put_in_place(self, node: str, path: str, arrival: Arrival) -> Gathered:
        top = Path(self._paths.collected) / node
        place = top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        _exchange(arrival.directory / path, place)
        sync(place.parent)
        shutil.rmtree(arrival.directory, ignore_errors=True)
        self._here[node, path] = arrival.files
        for file in arrival.files:
            self._known.add(file, top / file.path)
        self._note(node, path, arrival.files)
        size, linked = arrival.total_bytes, arrival.linked_bytes
        return Gathered(node, path, len(arrival.files), size, linked, place)

    def _note(self, node: str, path: str, files: tuple[PublishedFile, ...]) -> None:
        listed = [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in files]
        line = json.dumps({"node": node, "path": path, "files": listed})
        with Path(self._paths.collected_manifest).open("ab", buffering=0) as manifest:
            write_whole(manifest, line.encode() + b"\n")

    def close(self) -> None:
        """Lets go of what is not whole; what was there before stays."""
        for arrival in list(self._arriving.values()):
            self._arrivals.fail(arrival, "given up")
        self._arriving.clear()


def _not_gathered(node: str, path: str, reason: str) -> NotGathered:
    return NotGathered(node, path, f"{node}: {path!r}: {reason}")


def _require_inside(path: str, files: tuple[PublishedFile, ...]) -> None:
    """A path that is told has only files of its own."""
    if not files:
        raise BadManifest("it lists no file")
    for file in files:
        if file.path != path and not file.path.startswith(f"{path}/") and path != ".":
            raise BadManifest(f"it lists {file.path!r}, which is elsewhere")


def _exchange(fresh: Path, place: Path) -> None:
    """Puts a file or directory in the place of an older one."""
    if not place.is_dir() and not fresh.is_dir():
        fresh.replace(place)
        return
    old = place.with_name(f".old-{os.getpid()}-{place.name}")
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)
