"""flow.train.CheckPoint: what the script's variables are, to and from a directory."""

from __future__ import annotations

import typing

import numpy as np
import oneflow as flow

from launcher.legacy.blob import numpy_dtype
from launcher.legacy.mesh import Mesh
from launcher.legacy.session import session
from launcher.legacy.snapshot import Form, read_snapshot, write_snapshot
from launcher.legacy.train_state import load_state, save_state, state_forms

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]


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
            write_snapshot(path, values)
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
        found = read_snapshot(path, variables, states) if mesh.rank == 0 else {}
        values = _agreed(found, dict(states, **variables), mesh)
        for name in variables:
            session.variables.set(name, values[name], mesh)
        for job in session.jobs:
            load_state(job.__name__, job.program(), mesh, values)


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
