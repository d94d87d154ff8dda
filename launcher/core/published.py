"""A checkpoint's manifest as a node sends it: read with suspicion."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MANIFEST = "MANIFEST.json"
MAX_FILES = 100_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BadManifest(ValueError):
    """The manifest is none, or names what must not be written here."""


@dataclass(frozen=True)
class PublishedFile:
    """One file of a checkpoint; `path` is relative, with forward slashes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """Which part of a checkpoint it is.

    Attributes:
        rank: who published it.
        of: the ranks whose parts make the whole.
        attempt: how often the run had been started again: parts of two attempts never mix.
    """

    rank: int
    of: tuple[int, ...]
    attempt: int


@dataclass(frozen=True)
class Published:
    """A checkpoint, or one rank's part of it, as a worker published it."""

    step: int
    files: tuple[PublishedFile, ...]
    meta: dict[str, object]
    part: Part | None = None

    @property
    def total_bytes(self) -> int:
        """The size of all its files."""
        return sum(file.bytes for file in self.files)


def parse_published(data: bytes) -> Published:
    """Returns the checkpoint that a MANIFEST.json describes.

    Raises:
        BadManifest: it is malformed, or a path in it is absolute, climbs, or is no file name.
    """
    fields, files = _parse(data)
    try:
        meta, part = dict(fields.get("meta") or {}), _parse_part(fields.get("part"))
        published = Published(int(fields["step"]), files, meta, part)
    except (ValueError, KeyError, TypeError) as error:
        raise _malformed(error) from None
    if published.step < 0:
        raise BadManifest(f"its step is {published.step}")
    return published


def _parse_part(fields: Any) -> Part | None:
    if fields is None:
        return None
    part = Part(
        int(fields["rank"]), tuple(int(rank) for rank in fields["of"]), int(fields["attempt"])
    )
    if part.rank not in part.of or len(set(part.of)) != len(part.of):
        raise BadManifest(f"it is the part of rank {part.rank} of {list(part.of)[:8]}")
    return part


def join_parts(parts: Iterable[Published]) -> Published:
    """Returns the whole that parts of one step make; the first says what was saved with it.

    Raises:
        BadManifest: two of them have a path in common.
    """
    ordered = sorted(parts, key=lambda published: published.part.rank if published.part else 0)
    files = tuple(file for published in ordered for file in published.files)
    if len({file.path for file in files}) != len(files):
        raise BadManifest("two of its parts have a path in common")
    return Published(ordered[0].step, files, ordered[0].meta)


def parse_files(data: bytes) -> tuple[PublishedFile, ...]:
    """Returns the files that a manifest lists.

    Raises:
        BadManifest: it is malformed, or a path in it is absolute, climbs, or is no file name.
    """
    return _parse(data)[1]


def _parse(data: bytes) -> tuple[dict[str, Any], tuple[PublishedFile, ...]]:
    try:
        fields = json.loads(data)
        if "error" in fields:
            raise BadManifest(str(fields["error"]))
        listed = fields["files"]
        if len(listed) > MAX_FILES:
            raise BadManifest(f"it lists {len(listed)} files, at most {MAX_FILES} are taken")
        files = tuple(_parse_file(entry) for entry in listed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, BadManifest) else _malformed(error) from None
    if len({file.path for file in files}) != len(files):
        raise BadManifest("it lists a path twice")
    return fields, files


def _malformed(error: Exception) -> BadManifest:
    return BadManifest(f"it is malformed: {type(error).__name__}: {error}")


def _parse_file(entry: dict[str, object]) -> PublishedFile:
    path, size, sha256 = entry["path"], entry["bytes"], entry["sha256"]
    if not isinstance(path, str) or not _is_safe(path):
        raise BadManifest(f"it names a path that is not taken: {path!r}")
    if type(size) is not int or size < 0:
        raise BadManifest(f"the size of {path} is {size!r}")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BadManifest(f"the sha256 of {path} is {sha256!r}")
    return PublishedFile(path, size, sha256)


def _is_safe(path: str) -> bool:
    r"""Says whether a path stays inside of its directory and is printable.

    >>> [_is_safe(path) for path in ("fc1.weight/out", "../x", "/etc/passwd", "a//b", "a\nb", "")]
    [True, False, False, False, False, False]
    """
    parts = path.split("/")
    return (
        all(part not in ("", ".", "..") and len(part.encode("utf-8")) < 256 for part in parts)
        and path.isprintable()
        and "\\" not in path
        and path != MANIFEST
    )
