"""`oneflow.typing` of old: the annotations of job functions."""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from launcher.legacy.shapes import Shape


class TensorDef:
    """What an argument of a job function has to be.

    Attributes:
        dtype: of OneFlow, or None for the function's default.
    """

    def __init__(
        self, shape: typing.Sequence[int], dtype: typing.Any = None, name: str = ""
    ) -> None:
        self.shape: Shape = tuple(int(size) for size in shape)
        self.dtype = dtype
        self.name = name


class Numpy:
    """The annotation of a numpy array that a job function returns."""

    Placeholder = TensorDef


class CallbackOf:
    """What `Callback[…]` gives.

    Attributes:
        content: the annotation of what the callback is given.
    """

    def __init__(self, content: typing.Any) -> None:
        self.content = content


class _CallbackForm:
    """``tp.Callback[tp.Numpy]``: the call returns a function that takes the callback."""

    def __getitem__(self, content: typing.Any) -> CallbackOf:
        return CallbackOf(content)


Callback = _CallbackForm()
