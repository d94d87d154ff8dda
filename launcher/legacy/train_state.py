"""What an optimizer remembers, under the names and with the meaning of the old API.

The files hold ``<variable>-momentum`` (the step that momentum took last: today's buffer times
minus the learning rate), ``<variable>-m`` and ``-v`` of Adam, and the count of steps as
``System-Train-TrainStep-<job function>``.
"""

from __future__ import annotations

import typing

import numpy as np
import oneflow as flow

from launcher.legacy.mesh import Mesh
from launcher.legacy.optimizers import ADAM, MOMENTUM
from launcher.legacy.program import Program
from launcher.legacy.snapshot import Form

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]

_STEP = "System-Train-TrainStep"
_SUFFIXES = {MOMENTUM: ("-momentum",), ADAM: ("-m", "-v")}


def state_forms(
    job_name: str, program: Program, variables: typing.Mapping[str, Form]
) -> typing.Dict[str, Form]:
    """Returns the shape and dtype of what a job function's optimizer remembers, by old name."""
    if program.rule is None:
        return {}
    forms: typing.Dict[str, Form] = {"{}-{}".format(_STEP, job_name): ((1,), np.int64)}
    for suffix in _SUFFIXES.get(program.rule.kind, ()):
        forms.update((name + suffix, variables[name]) for name in program.trained)
    return forms


def save_state(job_name: str, program: Program, mesh: Mesh) -> typing.Dict[str, Array]:
    """Returns what a job function's optimizer remembers; nothing before its first step.

    Every rank has to ask.
    """
    if program.graph is None or not program.graph.is_compiled:
        return {}
    tensors = program.graph.state_dict()
    return {
        name: mesh.fetch(tensors[key]) * _factor(name, program)
        for key, name in _names(job_name, program).items()
        if key in tensors
    }


def load_state(
    job_name: str, program: Program, mesh: Mesh, saved: typing.Mapping[str, Array]
) -> None:
    """Takes back what `save_state` gave, as far as saved has it. Every rank has to ask."""
    graph = program.graph
    if graph is None:
        return
    names = _names(job_name, program)
    program.steps = int(saved[names[_STEP]][0]) if names[_STEP] in saved else 0
    values = {
        key: mesh.put_whole(_restored(saved[name], _factor(name, program)))
        for key, name in names.items()
        if name in saved
    }
    if not graph.is_compiled:
        graph.load_state_dict(values)
        return
    tensors = graph.state_dict()
    with flow.no_grad():
        for key, value in values.items():
            tensors[key].copy_(value)


def _names(job_name: str, program: Program) -> typing.Dict[str, str]:
    """Returns the graph's key and the old name of each thing remembered."""
    names = {_STEP: "{}-{}".format(_STEP, job_name)}
    assert program.rule is not None
    for suffix in _SUFFIXES.get(program.rule.kind, ()):
        for index, name in enumerate(program.trained):
            names["net.p{}{}".format(index, suffix)] = name + suffix
    return names


def _factor(name: str, program: Program) -> typing.Any:
    if not name.endswith("-momentum"):
        return 1
    assert program.rule is not None
    return np.float32(-program.rule.schedule.rate_at(max(program.steps - 1, 0)))


def _restored(value: Array, factor: typing.Any) -> Array:
    # At a learning rate of 0 no momentum was kept.
    return value if factor == 1 else np.asarray(value / factor if factor else value * 0)
