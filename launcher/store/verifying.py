"""Proving what is kept here: every byte hashed again, on all cores."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from launcher.core.paths import RunPaths
from launcher.core.published import MANIFEST, BadManifest, PublishedFile, parse_files
from launcher.errors import StoreError

# Hashing lets other threads run, so long as it gets much at a time.
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Expected:
    """A file that should be here, and what should be in it."""

    path: Path
    file: PublishedFile


@dataclass(frozen=True)
class Damage:
    """A file that is not what it should be."""

    path: Path
    problem: str


def expected_in(directory: Path) -> tuple[list[Expected], list[Damage]]:
    """Returns what a published directory should hold, and what is wrong before a byte is read."""
    where = directory / MANIFEST
    try:
        files = parse_files(where.read_bytes())
    except (OSError, BadManifest) as error:
        return [], [Damage(where, getattr(error, "strerror", None) or str(error))]
    listed = {directory / file.path for file in files}
    others = sorted(path for path in directory.rglob("*") if not path.is_dir() or path.is_symlink())
    strangers = [path for path in others if path not in listed and path != where]
    return (
        [Expected(directory / file.path, file) for file in files],
        [Damage(path, "it is not in the manifest") for path in strangers],
    )


def collected_before(paths: RunPaths) -> dict[tuple[str, str], tuple[PublishedFile, ...]]:
    """Returns what `--collect` brought here, by node and path, as it came last."""
    newest: dict[tuple[str, str], tuple[PublishedFile, ...]] = {}
    try:
        lines = Path(paths.collected_manifest).read_bytes().splitlines()
    except OSError:
        return newest
    for line in lines:
        try:
            fields = json.loads(line)
            newest[str(fields["node"]), str(fields["path"])] = parse_files(line)
        except (ValueError, KeyError, TypeError):
            continue  # the last line, torn by a kill: its path is told again
    return newest


def expected_collected(paths: RunPaths) -> list[Expected]:
    """Returns the files that `--collect` brought here, as they came last."""
    return [
        Expected(Path(paths.collected) / node / file.path, file)
        for (node, _), files in collected_before(paths).items()
        for file in files
    ]


def verify(
    expected: Sequence[Expected], on_bytes: Callable[[int], None], cores: int | None = None
) -> list[Damage]:
    """Hashes files and returns those that are not what they should be.

    A file that several directories share is read once.

    Args:
        expected: the files.
        on_bytes: is told how many more bytes are settled; called from several threads.
        cores: how many files are read at a time; None is one a core.
    """
    groups: dict[object, list[Expected]] = {}
    for one in expected:
        groups.setdefault(_identity(one), []).append(one)
    # Large ones first: a large one that begins last keeps one core busy and the others idle.
    ordered = sorted(groups.values(), key=lambda group: -group[0].file.bytes)
    workers = cores or os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        found = pool.map(lambda group: list(_verify_group(group, on_bytes)), ordered)
        return sorted((damage for damages in found for damage in damages), key=_by_path)


def _identity(expected: Expected) -> object:
    try:
        status = expected.path.lstat()
    except OSError:
        return expected.path
    return status.st_dev, status.st_ino, expected.file.sha256


def _verify_group(group: list[Expected], on_bytes: Callable[[int], None]) -> Iterator[Damage]:
    problem = _problem_with(group[0], on_bytes)
    on_bytes(sum(one.file.bytes for one in group[1:]))
    if problem:
        yield from (Damage(one.path, problem) for one in group)


def _problem_with(expected: Expected, on_bytes: Callable[[int], None]) -> str:
    try:
        if not expected.path.is_file() or expected.path.is_symlink():
            return "it is missing" if not expected.path.exists() else "it is no file"
        size = expected.path.stat().st_size
        if size != expected.file.bytes:
            return f"it has {size} bytes, published were {expected.file.bytes}"
        if _hash(expected.path, on_bytes) != expected.file.sha256:
            return "its sha256 is not the one that was published"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _hash(path: Path, on_bytes: Callable[[int], None]) -> str:
    digest, buffer = hashlib.sha256(), bytearray(_BLOCK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
            on_bytes(count)
    return digest.hexdigest()


def _by_path(damage: Damage) -> Path:
    return damage.path


def require_whole(damages: Sequence[Damage]) -> None:
    """Raises StoreError where something is damaged."""
    if damages:
        first = damages[0]
        raise StoreError(
            first.problem, where=str(first.path), hint="take another checkpoint, or pull it anew"
        )
