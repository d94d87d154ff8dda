"""flow.train.CheckPoint: a directory with one directory per variable, raw bytes in a file `out`.

It appears whole or not at all: everything is written beside it, flushed to the disk and renamed.
A file `snapshot_done` says that it is complete, as it did in the old API.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import typing

import numpy as np
import oneflow as flow

from launcher.legacy.blob import numpy_dtype
from launcher.legacy.mesh import Mesh
from launcher.legacy.session import session
from launcher.legacy.train_state import Form, load_state, save_state, state_forms
from launcher.legacy.unsupported import LegacyError

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]

DONE = "snapshot_done"
DATA = "out"


class CheckPoint:
    """Initializes, loads and saves all variables of the script."""

    def init(self) -> None:
        """Sets every variable to its initializer's value."""
        session.variables.initialize(session.start())

    def save(self, path: str) -> None:
        """Writes a checkpoint; rank 0 does.

        Args:
            path: a directory that does not exist, or is empty.

        Raises:
            LegacyError: it is there and not empty.
            OSError: it cannot be written; nothing is left at path then.
        """
        mesh = session.start()
        values = {
            spec.name: session.variables.value(spec.name, mesh)
            for spec in session.variables.specs()
        }
        for job in session.jobs:
            values.update(save_state(job.__name__, job.program(), mesh))
        if mesh.rank == 0:
            write_checkpoint(path, values)
        if mesh.world_size > 1:
            # Nobody reads it, or ends, before it is there.
            flow.comm.barrier()

    def load(self, path: str) -> None:
        """Reads a checkpoint on rank 0, for all.

        Raises:
            LegacyError: it is not complete, or a variable is missing or has another size.
        """
        mesh = session.start()
        specs = session.variables.specs()
        variables = {spec.name: (spec.shape, numpy_dtype(spec.dtype)) for spec in specs}
        states: typing.Dict[str, Form] = {}
        for job in session.jobs:
            states.update(state_forms(job.__name__, job.program(), variables))
        found = read_checkpoint(path, variables, states) if mesh.rank == 0 else {}
        values = _agreed(found, dict(states, **variables), mesh)
        for name in variables:
            session.variables.set(name, values[name], mesh)
        for job in session.jobs:
            load_state(job.__name__, job.program(), mesh, values)


def write_checkpoint(path: str, values: typing.Mapping[str, Array]) -> None:
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
        for name, value in values.items():
            os.mkdir(os.path.join(beside, name))
            _write(os.path.join(beside, name, DATA), np.ascontiguousarray(value).tobytes())
            _sync(os.path.join(beside, name))
        _write(os.path.join(beside, DONE), b"")
        # mkdtemp keeps others out; a checkpoint is as open as what the script makes itself.
        os.chmod(beside, 0o777 & ~_umask())
        _sync(beside)
        os.replace(beside, path)
        _sync(parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_checkpoint(
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


def _agreed(
    found: typing.Mapping[str, Array], forms: typing.Mapping[str, Form], mesh: Mesh
) -> typing.Dict[str, Array]:
    """Returns on every rank what rank 0 found."""
    flags = np.array([name in found for name in forms], dtype=np.int64)
    there = mesh.fetch(mesh.put_whole(flags)) if len(flags) else flags
    names = [name for name, flag in zip(forms, there) if flag]
    if mesh.world_size == 1:
        return {name: found[name] for name in names}
    zeros = {name: np.zeros(*forms[name]) for name in names if name not in found}
    mine = dict(zeros, **found)
    return {name: mesh.fetch(mesh.put_whole(mine[name])) for name in names}


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
