"""The old checkpoint on disk: a directory per variable with its raw bytes in a file `out`.

It appears whole or not at all: everything is written beside it, flushed to the disk and renamed.
A file `snapshot_done` says that it is complete, as it did in the old API.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import typing

import numpy as np

from launcher.legacy.unsupported import LegacyError

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]

Form = typing.Tuple[typing.Tuple[int, ...], typing.Any]
"""A shape, and a dtype of numpy."""

DONE = "snapshot_done"
DATA = "out"


def write_snapshot(path: str, values: typing.Mapping[str, Array]) -> None:
    """Writes a checkpoint directory, whole or not at all.

    Raises:
        LegacyError: path is there and not an empty directory.
        OSError: it cannot be written.
    """
    path = os.path.abspath(path)
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise LegacyError(
            "the checkpoint {} is there already; remove it, or save under another name".format(path)
        )
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    beside = tempfile.mkdtemp(prefix=".{}.".format(os.path.basename(path)), dir=parent)
    try:
        fill_snapshot(beside, values)
        # mkdtemp keeps others out; a checkpoint is as open as what the script makes itself.
        os.chmod(beside, 0o777 & ~_umask())
        _sync(beside)
        os.replace(beside, path)
        _sync(parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def fill_snapshot(directory: str, values: typing.Mapping[str, Array]) -> None:
    """Writes what makes a checkpoint into an empty directory; `DONE` last.

    Raises:
        OSError: it cannot be written.
    """
    for name, value in values.items():
        os.mkdir(os.path.join(directory, name))
        _write(os.path.join(directory, name, DATA), np.ascontiguousarray(value).tobytes())
        _sync(os.path.join(directory, name))
    _write(os.path.join(directory, DONE), b"")


def link_snapshot(source: str, directory: str) -> None:
    """Puts the files of a checkpoint, which nobody changes, into an empty directory too.

    Raises:
        OSError: they can be neither linked nor copied.
    """
    for name in sorted(os.listdir(source)):
        if name != DONE:
            os.mkdir(os.path.join(directory, name))
            _link(os.path.join(source, name, DATA), os.path.join(directory, name, DATA))
    _write(os.path.join(directory, DONE), b"")


def read_snapshot(
    path: str, needed: typing.Mapping[str, Form], wanted: typing.Mapping[str, Form]
) -> typing.Dict[str, Array]:
    """Returns the values of a checkpoint directory.

    Args:
        path: the directory.
        needed: the shape and dtype of what has to be there.
        wanted: of what is read where it is there.

    Raises:
        LegacyError: it is not complete, or something needed is missing or has another size.
    """
    if not os.path.isfile(os.path.join(path, DONE)):
        raise LegacyError(
            "{} is no complete checkpoint: it has no file {}; save one first, or copy it whole "
            "into the working directory {}".format(path, DONE, os.getcwd())
        )
    missing = [name for name in needed if not os.path.isfile(os.path.join(path, name, DATA))]
    if missing:
        raise LegacyError(
            "the checkpoint {} lacks the variable(s) {}; was it saved from the same "
            "network?".format(path, ", ".join(missing))
        )
    forms = dict(wanted, **needed)
    there = [name for name in forms if os.path.isfile(os.path.join(path, name, DATA))]
    return {name: _read(os.path.join(path, name, DATA), forms[name]) for name in there}


def _read(file: str, form: Form) -> Array:
    shape, dtype = form
    values = np.fromfile(file, dtype=dtype)
    if values.size != int(np.prod(shape)):
        raise LegacyError(
            "{} holds {} bytes; {} of {} takes {}; was it saved from the same network?".format(
                file,
                os.path.getsize(file),
                shape,
                np.dtype(dtype),
                int(np.prod(shape)) * np.dtype(dtype).itemsize,
            )
        )
    return values.reshape(shape)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one that has no links
        shutil.copyfile(source, target)


def _write(file: str, content: bytes) -> None:
    with open(file, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
