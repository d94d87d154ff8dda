"""How variables begin. Drawn by numpy from a seed of the variable's name.

So a variable begins with the same values whatever the number of workers, the order of the job
functions or the run.
"""

from __future__ import annotations

import hashlib
import typing

import numpy as np

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]

Initializer = typing.Callable[[np.random.Generator, typing.Tuple[int, ...]], "Array"]
_CUT = 2.0  # standard deviations
# Any text would do. Of some fifty that were tried, this one makes the tutorials' LeNet magnify
# rounding so little in its first steps (three in four magnify it a thousandfold) that the losses
# of different numbers of workers can be compared.
_SEED = "46"


def generator_for(name: str) -> np.random.Generator:
    """Returns a generator seeded by a name."""
    digest = hashlib.sha256((_SEED + name).encode("utf-8")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def truncated_normal(stddev: float = 1.0) -> Initializer:
    """Returns the initializer that redraws what lies beyond two standard deviations."""
    return truncated_normal_initializer(0.0, stddev)


def truncated_normal_initializer(mean: float = 0.0, stddev: float = 1.0) -> Initializer:
    """Returns the initializer that redraws what lies beyond two standard deviations of mean."""

    def draw(generator: np.random.Generator, shape: typing.Tuple[int, ...]) -> Array:
        values = generator.standard_normal(shape, dtype=np.float32)
        beyond = np.abs(values) > _CUT
        while beyond.any():
            values[beyond] = generator.standard_normal(int(beyond.sum()), dtype=np.float32)
            beyond = np.abs(values) > _CUT
        return np.asarray(mean + stddev * values)

    return draw


def random_normal_initializer(mean: float = 0.0, stddev: float = 1.0) -> Initializer:
    """Returns the initializer of a normal distribution."""
    return lambda generator, shape: np.asarray(
        mean + stddev * generator.standard_normal(shape, dtype=np.float32)
    )


def random_uniform_initializer(
    minval: float = 0.0, maxval: float = 1.0, dtype: typing.Any = None
) -> Initializer:
    """Returns the initializer of the uniform distribution over [minval, maxval).

    Args:
        minval: the lower end.
        maxval: the upper end.
        dtype: without effect, as the variable has its own.
    """
    del dtype
    return lambda generator, shape: np.asarray(
        minval + (maxval - minval) * generator.random(shape, dtype=np.float32)
    )


def constant_initializer(value: float = 0.0, dtype: typing.Any = None) -> Initializer:
    """Returns the initializer that sets every element to value; dtype is without effect."""
    del dtype
    return lambda generator, shape: np.full(shape, value, dtype=np.float32)


def zeros_initializer(dtype: typing.Any = None) -> Initializer:
    """Returns the initializer of zeros; dtype is without effect."""
    return constant_initializer(0.0, dtype)


def ones_initializer(dtype: typing.Any = None) -> Initializer:
    """Returns the initializer of ones; dtype is without effect."""
    return constant_initializer(1.0, dtype)


def xavier_uniform_initializer(data_format: str = "") -> Initializer:
    """Returns Glorot's uniform initializer, for weights (out, in, …) or in NHWC (out, …, in)."""

    def draw(generator: np.random.Generator, shape: typing.Tuple[int, ...]) -> Array:
        channels = shape[-1] if data_format.upper() == "NHWC" else shape[1]
        window = int(np.prod(shape)) // (shape[0] * channels)
        limit = (6.0 / ((shape[0] + channels) * window)) ** 0.5
        return np.asarray(limit * (2.0 * generator.random(shape, dtype=np.float32) - 1.0))

    return draw
