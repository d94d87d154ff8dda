"""The files that are here already, by their content: of this run's steps, and of earlier runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from launcher.collect.fetching import Key, key_of
from launcher.core.published import MANIFEST, BadManifest, PublishedFile, parse_published
from launcher.store.checkpoints import hash_of


class KnownFiles:
    """Where a file with some content is here.

    What this run brought was proven when it came. What an earlier one did is proven when it is
    wanted: years may lie between.
    """

    def __init__(self, top: Path) -> None:
        """Takes the run's directory; its siblings are looked at when they are first needed."""
        self._top = top
        self._proven: dict[Key, Path] = {}
        self._of_others: dict[Key, list[Path]] | None = None

    def add(self, file: PublishedFile, path: Path) -> None:
        """A file was brought here, proven."""
        self._proven[key_of(file)] = path

    def find(self, file: PublishedFile) -> Path | None:
        """Returns a file here that has this content, None where there is none."""
        key = key_of(file)
        known = self._proven.get(key)
        if known is not None and known.is_file():
            return known
        if self._of_others is None:
            self._of_others = _read_siblings(self._top)
        for path in self._of_others.pop(key, []):
            if _is_whole(path, file):
                self._proven[key] = path
                return path
        return None


def _is_whole(path: Path, file: PublishedFile) -> bool:
    try:
        return path.stat().st_size == file.bytes and hash_of(path) == file.sha256
    except OSError:
        return False  # gone meanwhile, or not ours to read: then it is as if it was not here


def _read_siblings(top: Path) -> dict[Key, list[Path]]:
    found: dict[Key, list[Path]] = {}
    for where in top.parent.glob(f"*/checkpoints/step-*/{MANIFEST}"):
        for file in _files_in(where):
            found.setdefault(key_of(file), []).append(where.parent / file.path)
    return found


def _files_in(where: Path) -> Iterator[PublishedFile]:
    try:
        yield from parse_published(where.read_bytes()).files
    except (OSError, BadManifest):
        return  # half gone, or damaged: nothing is to be had from there
