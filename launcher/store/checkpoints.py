"""The checkpoints of runs that are kept on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from launcher.core.model import Resume
from launcher.core.paths import RunPaths
from launcher.core.published import MANIFEST, BadManifest, Published, parse_published
from launcher.errors import StoreError, UsageError
from launcher.store.run_record import store_error
from launcher.store.runs import find_run
from launcher.wire import shards

_STEP = re.compile(r"step-(\d{8,})")
_MAX_NAMED = 8
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class KnownCheckpoint:
    """A checkpoint here: its directory, and what its manifest says is in it."""

    directory: Path
    published: Published

    @property
    def step(self) -> int:
        """The step that it was published at."""
        return self.published.step


def read_checkpoint(directory: Path) -> KnownCheckpoint:
    """Returns a checkpoint of this machine; its files are looked at only for their sizes.

    Raises:
        StoreError: the manifest is missing or damaged, or a file is missing or cut.
    """
    where = directory / MANIFEST
    try:
        published = parse_published(where.read_bytes())
        for file in published.files:
            size = (directory / file.path).stat().st_size
            if size != file.bytes:
                raise StoreError(
                    f"it has {size} bytes, published were {file.bytes}",
                    where=str(directory / file.path),
                    hint="take another checkpoint, or bring this one here anew",
                )
    except BadManifest as error:
        raise StoreError(f"no manifest of a checkpoint: {error}", where=str(where)) from None
    except OSError as error:
        raise store_error(error, where) from None
    return KnownCheckpoint(directory, published)


def hash_of(path: Path) -> str:
    """Returns the sha256, in hex, of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def steps_of(top: Path) -> dict[int, Path]:
    """Returns the directories of a run's checkpoints by their steps, in order.

    Raises:
        StoreError: the run's directory cannot be read.
    """
    found = {}
    try:
        for path in Path(RunPaths(top).checkpoints).iterdir():
            match = _STEP.fullmatch(path.name)
            if match:
                found[int(match.group(1))] = path
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise store_error(error, top) from None
    return dict(sorted(found.items()))


def resume_from(runs: Path, wanted: str) -> Resume:
    """Returns the checkpoint that `--resume` names.

    Args:
        runs: the directory of all runs.
        wanted: ``RUN`` for a run's newest checkpoint, ``RUN@STEP`` for one of its others, or the
            path of a published directory.

    Raises:
        UsageError: there is no such run, or it has no such checkpoint here.
        StoreError: it cannot be read.
    """
    if (Path(wanted) / MANIFEST).is_file():
        checkpoint = read_checkpoint(Path(wanted).resolve())
        return Resume("", checkpoint.step, str(checkpoint.directory))
    name, _, step = wanted.rpartition("@") if "@" in wanted else (wanted, "", "")
    if "@" in wanted and not step.isdecimal():
        raise UsageError(
            f"--resume {wanted}: expected RUN or RUN@STEP, got {step!r} for the step",
            hint="e.g. --resume last@600",
        )
    top = find_run(runs, name).top
    directory = _at_step(top, step)
    checkpoint = read_checkpoint(directory.resolve())
    return Resume(top.name, checkpoint.step, str(checkpoint.directory))


def _at_step(top: Path, step: str) -> Path:
    """Returns the checkpoint of a run at a step, or its newest where that is ""."""
    known = steps_of(top)
    if not known:
        raise UsageError(
            f"no checkpoint of {top.name} is here",
            hint="name a run that published some: they are in its directory, under checkpoints/",
        )
    if not step:
        return known[max(known)]
    if int(step) not in known:
        steps = list(known)
        named = ", ".join(map(str, steps[-_MAX_NAMED:]))
        more = "…, " if len(steps) > _MAX_NAMED else ""
        raise UsageError(
            f"{top.name} has no checkpoint of step {step} here; there are {more}{named}",
            hint=f"e.g. --resume {top.name}@{steps[-1]}",
        )
    return known[int(step)]


def export(source: Path, target: Path) -> KnownCheckpoint:
    """Copies a checkpoint's files to a directory of their own, proving each; all or none.

    Raises:
        UsageError: there is something at the target already.
        StoreError: a file is damaged, or cannot be read or written.
    """
    checkpoint = read_checkpoint(source)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(
                f"{target} is there already", hint="name a directory that does not exist, or empty"
            )
        fresh.mkdir(parents=True)
        for file in checkpoint.published.files:
            _copy_proven(source / file.path, fresh / file.path, file.sha256)
        _join_parts(fresh, checkpoint.published)
        fresh.replace(target)
    except OSError as error:
        raise store_error(error, target) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return checkpoint


def _join_parts(directory: Path, published: Published) -> None:
    """Makes one file of each tensor whose ranks published their parts of it."""
    split = shards.tensors_in_parts([file.path for file in published.files])
    for folder in split:
        try:
            shards.join(str(directory / folder), str(directory / folder / shards.WHOLE))
        except shards.ShardError as error:
            raise StoreError(str(error), hint="take another checkpoint") from None
    for file in published.files:
        if shards.is_part(file.path, split):
            (directory / file.path).unlink()


def _copy_proven(source: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file, target.open("wb") as copy:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            copy.write(block)
    if digest.hexdigest() != sha256:
        raise StoreError(
            "its sha256 is not the one that was published",
            where=str(source),
            hint="take another checkpoint, or bring this one here anew",
        )
