"""A job function's body, recorded: symbolic values and the list of what computes them.

The body of a job function runs once, before there is any data, as it did in the old API: each
operator appends a blob with its shape and a closure over tensors. Whatever computes the function
later (an nn.Graph, or eager mode) replays that list.
"""

from __future__ import annotations

import contextlib
import typing

import oneflow as flow

from launcher.legacy import shapes
from launcher.legacy.unsupported import LegacyError, not_covered

if typing.TYPE_CHECKING:
    from launcher.legacy.config import FunctionConfig
    from launcher.legacy.data import RecordSource
    from launcher.legacy.optimizers import UpdateRule

Compute = typing.Callable[..., typing.Any]


class Blob:
    """A value of a job function, before there is data.

    Attributes:
        shape: the whole shape, over all workers.
        dtype: a dtype of OneFlow 0.9.
        name: what an error calls it.
        compute: makes the tensor from the inputs' tensors; None is fed from outside.
        inputs: the blobs that compute is given.
        training_only: where nothing is trained, this is its first input.
    """

    def __init__(
        self,
        shape: shapes.Shape,
        dtype: typing.Any,
        name: str,
        compute: typing.Optional[Compute] = None,
        inputs: typing.Tuple["Blob", ...] = (),
        training_only: bool = False,
    ) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.dtype = dtype
        self.name = name
        self.compute = compute
        self.inputs = inputs
        self.training_only = training_only

    @property
    def static_shape(self) -> shapes.Shape:
        """The same as shape: there are no dynamic shapes here."""
        return self.shape

    def __getattr__(self, name: str) -> typing.Any:
        raise AttributeError(name) if name.startswith("__") else not_covered("Blob." + name)

    def __repr__(self) -> str:
        return "Blob({}, shape={}, dtype={})".format(self.name, self.shape, self.dtype)

    def __bool__(self) -> bool:
        raise LegacyError(
            "{}: a value of a job function has no truth while the function is built; "
            "decide on what the job function returns".format(self.name)
        )

    def __add__(self, other: typing.Any) -> "Blob":
        return _elementwise("add", lambda a, b: a + b, self, other)

    def __radd__(self, other: typing.Any) -> "Blob":
        return _elementwise("add", lambda a, b: b + a, self, other)

    def __sub__(self, other: typing.Any) -> "Blob":
        return _elementwise("subtract", lambda a, b: a - b, self, other)

    def __rsub__(self, other: typing.Any) -> "Blob":
        return _elementwise("subtract", lambda a, b: b - a, self, other)

    def __mul__(self, other: typing.Any) -> "Blob":
        return _elementwise("multiply", lambda a, b: a * b, self, other)

    def __rmul__(self, other: typing.Any) -> "Blob":
        return _elementwise("multiply", lambda a, b: b * a, self, other)

    def __truediv__(self, other: typing.Any) -> "Blob":
        return _elementwise("divide", lambda a, b: a / b, self, other)

    def __rtruediv__(self, other: typing.Any) -> "Blob":
        return _elementwise("divide", lambda a, b: b / a, self, other)

    def __neg__(self) -> "Blob":
        return typing.cast(Blob, apply("negative", lambda a: -a, self.shape, self.dtype, self))


class Trace:
    """What one job function's body said, in order."""

    def __init__(self, job_name: str, config: FunctionConfig) -> None:
        self.job_name = job_name
        self.config = config
        self.rule: typing.Optional[UpdateRule] = None
        self.arguments: typing.List[Blob] = []
        self.blobs: typing.List[Blob] = []
        self.variables: typing.Dict[str, Blob] = {}
        self.masks: typing.List[Mask] = []
        self.sources: typing.List[RecordSource] = []
        self.losses: typing.List[Blob] = []
        self.scopes: typing.List[typing.Tuple[str, typing.Tuple[str, ...]]] = []
        self.namespaces: typing.List[str] = []

    def add(self, blob: Blob) -> Blob:
        """Appends a blob and returns it.

        Raises:
            LegacyError: it stands on a blob of another job function.
        """
        for one in blob.inputs:
            if one not in self.blobs:
                raise LegacyError(
                    "job function {}: {} uses {}, a value of another job function; return it "
                    "there and pass it in".format(self.job_name, blob.name, one.name)
                )
        self.blobs.append(blob)
        return blob

    def needed_for(self, ends: typing.Iterable[Blob], training: bool) -> typing.List[Blob]:
        """Returns the blobs that the ends stand on, and the ends, in recorded order."""
        wanted = set(ends)
        for blob in reversed(self.blobs):
            if blob in wanted:
                skipped = blob.training_only and not training
                wanted.update(blob.inputs[:1] if skipped else blob.inputs)
        return [blob for blob in self.blobs if blob in wanted]


class Mask(typing.NamedTuple):
    """What a dropout is fed with at each step.

    Attributes:
        rate: the share of elements that become zero.
    """

    blob: Blob
    rate: float


_traces: typing.List[Trace] = []


@contextlib.contextmanager
def recording(trace: Trace) -> typing.Iterator[Trace]:
    """Makes the trace the one that operators record into."""
    if _traces:
        raise LegacyError(
            "job function {} is called inside job function {}; share the code as a plain "
            "function".format(trace.job_name, _traces[-1].job_name)
        )
    _traces.append(trace)
    try:
        yield trace
    finally:
        _traces.pop()


def is_recording() -> bool:
    """Says whether a job function's body is running."""
    return bool(_traces)


def current_trace(symbol: str) -> Trace:
    """Returns the trace that is being recorded.

    Raises:
        LegacyError: symbol is called outside a job function.
    """
    if not _traces:
        raise LegacyError(
            "{} belongs into the body of a job function (@flow.global_function)".format(symbol)
        )
    return _traces[-1]


def apply(
    name: str, compute: Compute, shape: shapes.Shape, dtype: typing.Any, *inputs: typing.Any
) -> typing.Any:
    """Records an operator; given today's tensors only, computes it at once.

    Args:
        name: what an error calls the result.
        compute: takes the inputs' tensors, gives the result's.
        shape: the result's shape.
        dtype: the result's dtype.
        inputs: blobs, or tensors of today.
    """
    if not any(isinstance(one, Blob) for one in inputs):
        return compute(*inputs)
    for one in inputs:
        if not isinstance(one, Blob):
            raise LegacyError(
                "{}: {} is no value of the job function; pass it as an argument or make it with "
                "oneflow.get_variable".format(name, type(one).__name__)
            )
    return current_trace(name).add(Blob(shape, dtype, name, compute, inputs))


def _elementwise(name: str, compute: Compute, left: Blob, right: typing.Any) -> Blob:
    if isinstance(right, Blob):
        shape = shapes.broadcast(left.shape, right.shape)
        return typing.cast(Blob, apply(name, compute, shape, left.dtype, left, right))
    if not isinstance(right, (int, float)):
        return typing.cast(Blob, NotImplemented)
    made = apply(name, lambda a: compute(a, right), left.shape, left.dtype, left)
    return typing.cast(Blob, made)


def numpy_dtype(dtype: typing.Any) -> typing.Any:
    """Returns numpy's dtype for one of OneFlow."""
    return flow.convert_oneflow_dtype_to_numpy_dtype(dtype)
