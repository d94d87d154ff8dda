"""Checkpoints: written aside, hashed while written, fsynced, then renamed into place.

A published directory ``step-<8 digits>`` never changes. What dies while it writes leaves a
``.tmp-step-<8 digits>-<pid>`` that the next save clears away. Where several ranks hold parts of a
state, each publishes its own, ``step-<8 digits>.part-<rank>.attempt-<attempt>``; the launcher makes
one checkpoint of them when it knows them all.

Shipped to nodes: Python 3.7 and its standard library only; oneflow is imported where it is used.
"""

import contextlib
import hashlib
import json
import os
import pickle
import re
import shutil
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

from launcher.wire import shards
from launcher.worker.snapshot import PICKLE, File, Snapshot

MANIFEST = "MANIFEST.json"
_TMP = re.compile(r"^\.tmp-step-\d{8,}(?:\.[^/]*)?-(\d+)$")
_BLOCK_BYTES = 1 << 20


class CheckpointError(Exception):
    """A checkpoint's files are not those that were published."""


class Target(NamedTuple):
    """What is to be published, and where.

    Attributes:
        directory: the folder of all checkpoints.
        meta: JSON values for the manifest.
        part: None for a whole checkpoint; else ``{"rank": …, "of": [ranks], "attempt": …}``.
    """

    directory: str
    step: int
    meta: Dict[str, Any]
    part: Any = None

    @property
    def name(self) -> str:
        """The name of the directory that will stand."""
        if self.part is None:
            return name_of(self.step)
        rank, attempt = self.part["rank"], self.part["attempt"]
        return "%s.part-%d.attempt-%d" % (name_of(self.step), rank, attempt)

    def check(self) -> None:
        """Raises ValueError or TypeError for what can be no checkpoint."""
        if self.step < 0:
            raise ValueError("a checkpoint's step cannot be negative: %d" % self.step)
        json.dumps(self.meta)  # what JSON lacks shows before anything is written


def name_of(step: int) -> str:
    """Returns a checkpoint's name.

    >>> name_of(600)
    'step-00000600'
    """
    return "step-%08d" % step


def publish(snapshot: Snapshot, target: Target) -> str:
    """Publishes what this rank has of a state. Returns the published directory."""

    def write(temporary: str) -> List[Dict[str, Any]]:
        return [_write(temporary, file) for file in sorted(snapshot.files, key=_path)]

    return _publish(write, target)


def publish_files(fill: Callable[[str], object], target: Target) -> str:
    """Publishes whatever `fill` puts into the directory whose path it is given."""

    def write(temporary: str) -> List[Dict[str, Any]]:
        fill(temporary)
        return [_file_entry(temporary, path) for path in _files(temporary)]

    return _publish(write, target)


def _publish(write: Callable[[str], List[Dict[str, Any]]], target: Target) -> str:
    target.check()
    final = os.path.join(target.directory, target.name)
    temporary = os.path.join(target.directory, ".tmp-%s-%d" % (target.name, os.getpid()))
    os.makedirs(target.directory, exist_ok=True)
    _clear_leftovers(target.directory)
    os.mkdir(temporary)
    files = write(temporary)
    if os.path.isdir(final):
        _settle_again(temporary, final)
    else:
        _settle(temporary, final, target, files)
    return final


def _settle(temporary: str, final: str, target: Target, files: List[Dict[str, Any]]) -> None:
    manifest = {"step": target.step, "time": time.time(), "meta": target.meta, "files": files}
    if target.part is not None:
        manifest["part"] = target.part
    with open(os.path.join(temporary, MANIFEST), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
    for folder, _, names in os.walk(temporary, topdown=False):
        for name in names:
            _fsync(os.path.join(folder, name))
        _fsync(folder)
    os.rename(temporary, final)
    _fsync(target.directory)


def _path(file: File) -> str:
    return file.path


def _write(root: str, file: File) -> Dict[str, Any]:
    """Writes a file and returns its manifest entry: hashed on the way, not read again."""
    where = os.path.join(root, *file.path.split("/"))
    os.makedirs(os.path.dirname(where), exist_ok=True)
    view = memoryview(file.read())
    # An empty array of several dimensions cannot be cast.
    data = view.cast("B") if view.nbytes else memoryview(b"")
    digest = hashlib.sha256()
    with open(where, "wb") as out:
        for at in range(0, len(data), _BLOCK_BYTES):
            block = data[at : at + _BLOCK_BYTES]
            digest.update(block)
            out.write(block)
    return {"path": file.path, "bytes": len(data), "sha256": digest.hexdigest()}


def load(path: str) -> Any:
    """Verifies a published directory, then returns what ``flow.load`` makes of it."""
    manifest = verify(path)
    if not os.path.exists(os.path.join(path, PICKLE)):
        raise CheckpointError(
            "%s holds other files than save_checkpoint's; one that a script with --legacy-api "
            "saved goes through `python -m launcher.legacy.convert` first" % path
        )
    import oneflow

    paths = [str(entry["path"]) for entry in manifest["files"]]
    with _in_one_piece(path, paths) as whole:
        return oneflow.load(whole)


@contextlib.contextmanager
def _in_one_piece(path: str, paths: List[str]) -> Iterator[str]:
    """Gives the directory itself, or, where tensors lie in parts, one with these joined."""
    split = shards.tensors_in_parts(paths)
    if not split:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="flowlaunch-") as whole:
        for name in paths:
            where = os.path.join(whole, name)
            os.makedirs(os.path.dirname(where), exist_ok=True)
            if not shards.is_part(name, split):
                os.symlink(os.path.join(os.path.abspath(path), name), where)
        for folder in split:
            try:
                out = os.path.join(whole, folder, shards.WHOLE)
                shards.join(os.path.join(path, folder), out)
            except shards.ShardError as error:
                raise CheckpointError(str(error)) from None
        yield whole


def verify(path: str) -> Dict[str, Any]:
    """Proves every byte of a published directory and returns its manifest.

    Raises:
        CheckpointError: a file is missing, or is not the one that was published.
    """
    manifest = _read_manifest(path)
    for entry in manifest["files"]:
        _verify_file(path, entry)
    return manifest


def _read_manifest(path: str) -> Dict[str, Any]:
    try:
        with open(os.path.join(path, MANIFEST), encoding="utf-8") as file:
            manifest = json.load(file)
        if all({"path", "bytes", "sha256"} <= set(entry) for entry in manifest["files"]):
            return dict(manifest)
    except FileNotFoundError:
        raise CheckpointError(
            "%s is no published checkpoint: it has no %s; give a directory step-<8 digits>"
            % (path, MANIFEST)
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError("%s in %s cannot be read: %s" % (MANIFEST, path, error)) from None
    raise CheckpointError("%s in %s lacks what each file must have" % (MANIFEST, path))


def _verify_file(path: str, entry: Dict[str, Any]) -> None:
    hint = "; take another checkpoint, or copy this one anew"
    where = os.path.join(path, entry["path"])
    try:
        size = os.path.getsize(where)
        if size != entry["bytes"]:
            raise CheckpointError(
                "%s has %d bytes, published were %d%s" % (where, size, entry["bytes"], hint)
            )
        if _sha256(where) != entry["sha256"]:
            raise CheckpointError("%s is not as published: its sha256 differs%s" % (where, hint))
    except OSError as error:
        raise CheckpointError("%s: %s%s" % (where, error.strerror, hint)) from None


def _settle_again(temporary: str, final: str) -> None:
    """A restart may come by a step that it published before its end: the same again is no harm."""
    same = _content(temporary) == _content(final)
    shutil.rmtree(temporary)
    if not same:
        raise ValueError(
            "%s is published already, with other content; a published checkpoint is never "
            "replaced: save under another step, or into an empty directory" % final
        )


def _files(root: str) -> List[str]:
    found = []
    for folder, _, names in os.walk(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


def _file_entry(root: str, path: str) -> Dict[str, Any]:
    where = os.path.join(root, path)
    return {"path": path, "bytes": os.path.getsize(where), "sha256": _sha256(where)}


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK_BYTES), b""):
            digest.update(block)
    return digest.hexdigest()


def _fsync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _clear_leftovers(directory: str) -> None:
    """Removes what dead processes left, and what an earlier process of our own pid did."""
    for name in os.listdir(directory):
        match = _TMP.match(name)
        if match and (int(match.group(1)) == os.getpid() or not _lives(int(match.group(1)))):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _StoredTensor:
    """Stands for a tensor when two saves are compared; pickles as the hashes of its files.

    flow.save names a tensor's directory by a counter of its process, so equal states lie under
    different names: what counts is what lies there.
    """

    root = ""

    def __init__(self, *_: Any) -> None:
        self.digests = []  # type: List[str]

    def __setstate__(self, state: Dict[str, str]) -> None:
        folder = os.path.join(self.root, state["path"])
        self.digests = [_sha256(os.path.join(folder, name)) for name in sorted(os.listdir(folder))]

    def __reduce__(self) -> Tuple[Any, ...]:
        return tuple, (self.digests,)


def _content(root: str) -> bytes:
    """Returns what a saved directory holds, in a form in which equal states are equal."""
    if not os.path.exists(os.path.join(root, PICKLE)):
        paths = [path for path in _files(root) if path != MANIFEST]
        return pickle.dumps([(path, _sha256(os.path.join(root, path))) for path in paths])
    stand_in = type("_StoredHere", (_StoredTensor,), {"root": root})

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return stand_in if name in ("Tensor", "Parameter") else super().find_class(module, name)

    with open(os.path.join(root, PICKLE), "rb") as file:
        return pickle.dumps(Unpickler(file).load())
