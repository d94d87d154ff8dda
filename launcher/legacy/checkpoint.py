"""flow.train.CheckPoint: what the script's variables are, to and from a directory.

Under the launcher what is saved is also published, so that it comes home like any checkpoint, and
a run with `--resume` begins with the checkpoint that it was given.
"""

from __future__ import annotations

import functools
import os
import sys
import typing

import numpy as np
import oneflow as flow

from launcher.legacy.blob import numpy_dtype
from launcher.legacy.mesh import Mesh
from launcher.legacy.session import session
from launcher.legacy.snapshot import (
    DONE,
    Form,
    fill_snapshot,
    link_snapshot,
    read_snapshot,
    write_snapshot,
)
from launcher.legacy.train_state import load_state, save_state, state_forms
from launcher.legacy.unsupported import LegacyError
from launcher.worker import context
from launcher.worker.checkpoint import verify

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]


# What this process saved: there a script means its own, whatever it was started with.
_saved: typing.Set[str] = set()


class CheckPoint:
    """Initializes, loads and saves all variables of the script."""

    def init(self) -> None:
        """Sets every variable to its initializer's value, or to what `--resume` gives."""
        mesh = session.start()
        session.variables.initialize(mesh)
        resumed = context().resume_from
        if resumed is not None:
            _load(_resumed(resumed), mesh)

    def save(self, path: str) -> None:
        """Writes a checkpoint; rank 0 does.

        Args:
            path: a directory that does not exist, or is empty.

        Raises:
            LegacyError: it is there and not empty.
            OSError: it cannot be written; nothing is left at path then.
        """
        mesh = session.start()
        values = _values(mesh)
        if mesh.rank == 0:
            write_snapshot(path, values)
            _publish(functools.partial(link_snapshot, path), path)
        _saved.add(os.path.abspath(path))
        if mesh.world_size > 1:
            # Nobody reads it, or ends, before it is there.
            flow.comm.barrier()

    def load(self, path: str) -> None:
        """Reads a checkpoint on rank 0, for all; `--resume` goes before what the script names.

        Raises:
            LegacyError: it is not complete, or a variable is missing or has another size.
        """
        resumed = context().resume_from
        if resumed is not None and os.path.abspath(path) not in _saved:
            path = _resumed(resumed)
        _load(path, session.start())


def steps_done() -> int:
    """Returns how many training steps the script has started."""
    return max([job.steps_done() for job in session.jobs] or [0])


def publish_now() -> None:
    """Publishes the variables as they are, on rank 0 alone.

    Nobody else takes part, so it can be done where every rank holds everything only.
    """
    mesh = session.start()
    if len(mesh.ranks) == mesh.world_size:
        _publish(lambda directory: fill_snapshot(directory, _values(mesh)), "")


def _publish(write: typing.Callable[[str], None], saved_as: str) -> None:
    """Publishes what `write` puts into a directory, where there is a launcher to bring it home."""
    worker, step = context(), steps_done()
    if not worker.run_id:
        return
    try:
        worker.save_files(write, step, saved_as=saved_as)
    except ValueError as error:
        # A script may save twice in a step, of different functions.
        _say("{} is not brought home: {}".format(saved_as or "what was learnt", error))
        return
    if not saved_as:
        _say("stopped after step {0}; the checkpoint of step {0} is what was learnt".format(step))


def _resumed(directory: str) -> str:
    """Returns the checkpoint of `--resume`, proven."""
    verify(directory)
    if not os.path.isfile(os.path.join(directory, DONE)):
        raise LegacyError(
            "{} is no checkpoint of the old API: `python -m launcher.legacy.convert` makes one of "
            "it where the networks agree".format(directory)
        )
    if context().rank == 0:
        _say("the script begins with {}, as --resume says".format(os.path.basename(directory)))
    return directory


def _values(mesh: Mesh) -> typing.Dict[str, Array]:
    """Returns everything that a checkpoint holds, by its old name."""
    variables = session.variables
    values = {spec.name: variables.value(spec.name, mesh) for spec in variables.specs()}
    for job in session.jobs:
        values.update(save_state(job.__name__, job.program(), mesh))
    return values


def _load(path: str, mesh: Mesh) -> None:
    specs = session.variables.specs()
    variables = {spec.name: (spec.shape, numpy_dtype(spec.dtype)) for spec in specs}
    states: typing.Dict[str, Form] = {}
    for job in session.jobs:
        states.update(state_forms(job.__name__, job.program(), variables))
    found = read_snapshot(path, variables, states) if mesh.rank == 0 else {}
    values = _agreed(found, dict(states, **variables), mesh)
    for name in variables:
        session.variables.set(name, values[name], mesh)
    for job in session.jobs:
        load_state(job.__name__, job.program(), mesh, values)


def _say(words: str) -> None:
    sys.stderr.write("flowlaunch --legacy-api: {}\n".format(words))
    sys.stderr.flush()


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
