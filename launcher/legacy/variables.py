"""The variables of a script, by name, shared by its job functions."""

from __future__ import annotations

import typing

import numpy as np
import oneflow as flow

from launcher.legacy.blob import numpy_dtype
from launcher.legacy.initializers import Initializer, generator_for
from launcher.legacy.mesh import Mesh
from launcher.legacy.unsupported import LegacyError

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]


class VariableSpec(typing.NamedTuple):
    """What get_variable said."""

    name: str
    shape: typing.Tuple[int, ...]
    dtype: typing.Any
    initializer: Initializer
    trainable: bool


class Variables:
    """Every variable: first its spec, then a value, then a parameter that is trained."""

    def __init__(self) -> None:
        self._specs: typing.Dict[str, VariableSpec] = {}
        self._values: typing.Dict[str, Array] = {}
        self._parameters: typing.Dict[str, typing.Any] = {}

    def specs(self) -> typing.List[VariableSpec]:
        """Returns what is declared, in the order of first use."""
        return list(self._specs.values())

    def spec(self, name: str) -> typing.Optional[VariableSpec]:
        """Returns what is known of a variable, or None."""
        return self._specs.get(name)

    def declare(self, spec: VariableSpec) -> VariableSpec:
        """Adds a variable, or finds it as it was first declared.

        Raises:
            LegacyError: it was declared with another shape or dtype.
        """
        known = self._specs.setdefault(spec.name, spec)
        if (known.shape, known.dtype) != (spec.shape, spec.dtype):
            raise LegacyError(
                "variable {} is {} {} in one place and {} {} in another; "
                "give one of them another name".format(
                    spec.name, known.shape, known.dtype, spec.shape, spec.dtype
                )
            )
        return known

    def initialize(self, mesh: Mesh) -> None:
        """Sets every variable to its initializer's value."""
        for spec in self._specs.values():
            self.set(spec.name, self._initial(spec), mesh)

    def set(self, name: str, value: Array, mesh: Mesh) -> None:
        """Sets one variable, also one that is being trained.

        Args:
            name: a declared variable.
            value: of its shape. Rank 0's is what every rank gets.
            mesh: where parameters live.
        """
        parameter = self._parameters.get(name)
        if parameter is None:
            self._values[name] = value
            return
        with flow.no_grad():
            parameter.copy_(mesh.put_whole(value))

    def parameter(self, name: str, mesh: Mesh) -> typing.Any:
        """Returns the tensor that job functions share, made at its first use."""
        if name not in self._parameters:
            spec = self._specs[name]
            value = self._values.pop(name, None)
            whole = self._initial(spec) if value is None else value
            self._parameters[name] = flow.nn.Parameter(
                mesh.put_whole(whole), requires_grad=spec.trainable
            )
        return self._parameters[name]

    def value(self, name: str, mesh: Mesh) -> Array:
        """Returns a variable's value as it is now. Every rank has to ask."""
        return np.asarray(mesh.fetch(self.parameter(name, mesh)))

    def _initial(self, spec: VariableSpec) -> Array:
        drawn = spec.initializer(generator_for(spec.name), spec.shape)
        return np.ascontiguousarray(drawn, dtype=numpy_dtype(spec.dtype))
