"""Checkpoints: written aside, fsynced, hashed, then renamed into place.

A published directory ``step-<8 digits>`` never changes. What dies while it writes leaves a
``.tmp-step-<8 digits>-<pid>`` that the next save clears away.
"""

import hashlib
import json
import os
import pickle
import re
import shutil
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

MANIFEST = "MANIFEST.json"
_PICKLE = "pickled_data"  # flow.save's own file; each tensor is a directory beside it
_TMP = re.compile(r"^\.tmp-step-\d{8,}-(\d+)$")
_BLOCK_BYTES = 1 << 20


class CheckpointError(Exception):
    """A checkpoint's files are not those that were published."""


def name_of(step: int) -> str:
    """Returns a checkpoint's name.

    >>> name_of(600)
    'step-00000600'
    """
    return "step-%08d" % step


def save(state: Any, *, directory: str, step: int, meta: Dict[str, Any], rank: int) -> str:
    """Publishes `state`; see `Context.save_checkpoint`. Returns the published directory."""
    final, temporary = _places(directory, step)
    tensors = list(_tensors(state))
    is_global = any(tensor.is_global for tensor in tensors)
    if rank == 0:
        _make_room(directory, meta)
    if is_global:
        _save_global(state, temporary)
    elif rank == 0:
        import oneflow

        oneflow.save(state, temporary)
    if rank == 0:
        _publish(temporary, final, step, meta)
    return final


def save_files(
    write: Callable[[str], object], *, directory: str, step: int, meta: Dict[str, Any]
) -> str:
    """Publishes whatever `write` puts into the directory whose path it is given."""
    final, temporary = _places(directory, step)
    _make_room(directory, meta)
    os.mkdir(temporary)
    write(temporary)
    _publish(temporary, final, step, meta)
    return final


def _places(directory: str, step: int) -> Tuple[str, str]:
    """Returns where a checkpoint is to stand, and where it is written before."""
    if step < 0:
        raise ValueError("a checkpoint's step cannot be negative: %d" % step)
    temporary = ".tmp-%s-%d" % (name_of(step), os.getpid())
    return os.path.join(directory, name_of(step)), os.path.join(directory, temporary)


def _make_room(directory: str, meta: Dict[str, Any]) -> None:
    json.dumps(meta)  # what JSON lacks shows before anything is written
    os.makedirs(directory, exist_ok=True)
    _clear_leftovers(directory)


def load(path: str) -> Any:
    """Verifies a published directory, then returns what ``flow.load`` makes of it."""
    verify(path)
    if not os.path.exists(os.path.join(path, _PICKLE)):
        raise CheckpointError(
            "%s holds other files than save_checkpoint's; one that a script with --legacy-api "
            "saved goes through `python -m launcher.legacy.convert` first" % path
        )
    import oneflow

    return oneflow.load(path)


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


def _tensors(state: Any) -> Iterator[Any]:
    """Yields every flow tensor in a state. Known by their looks: oneflow need not be imported."""
    if isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _tensors(value)
    elif hasattr(state, "is_global") and hasattr(state, "to_global"):
        yield state


def _save_global(state: Any, temporary: str) -> None:
    """flow.save takes either local or global tensors: the local ones are made global for it."""
    import oneflow

    everything = oneflow.placement("cpu", list(range(oneflow.env.get_world_size())))

    def lift(value: Any) -> Any:
        if isinstance(value, dict):
            return type(value)((key, lift(item)) for key, item in value.items())
        if isinstance(value, (list, tuple)):
            return type(value)(lift(item) for item in value)
        if hasattr(value, "is_global") and not value.is_global:
            return value.to_global(placement=everything, sbp=oneflow.sbp.broadcast)
        return value

    oneflow.save(lift(state), temporary, global_dst_rank=0)


def _publish(temporary: str, final: str, step: int, meta: Dict[str, Any]) -> None:
    if os.path.isdir(final):
        _settle_again(temporary, final)
        return
    files = [_file_entry(temporary, path) for path in _files(temporary)]
    manifest = {"step": step, "time": time.time(), "meta": meta, "files": files}
    where = os.path.join(temporary, MANIFEST)
    with open(where, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
    for folder, _, names in os.walk(temporary, topdown=False):
        for name in names:
            _fsync(os.path.join(folder, name))
        _fsync(folder)
    os.rename(temporary, final)
    _fsync(os.path.dirname(final))


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
    if not os.path.exists(os.path.join(root, _PICKLE)):
        paths = [path for path in _files(root) if path != MANIFEST]
        return pickle.dumps([(path, _sha256(os.path.join(root, path))) for path in paths])
    stand_in = type("_StoredHere", (_StoredTensor,), {"root": root})

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return stand_in if name in ("Tensor", "Parameter") else super().find_class(module, name)

    with open(os.path.join(root, _PICKLE), "rb") as file:
        return pickle.dumps(Unpickler(file).load())
