"""Job functions: the decorators, the arguments they check and the results they give."""

from __future__ import annotations

import inspect
import typing

import numpy as np
import oneflow as flow

from launcher.legacy import stopping
from launcher.legacy.blob import Blob, Trace, numpy_dtype, recording
from launcher.legacy.config import FunctionConfig
from launcher.legacy.optimizers import UpdateRule
from launcher.legacy.program import Program
from launcher.legacy.session import session
from launcher.legacy.typing_ import CallbackOf, TensorDef
from launcher.legacy.unsupported import LegacyError

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]

Body = typing.Callable[..., typing.Any]
TRAIN = "train"
PREDICT = "predict"


def global_function(
    type: typing.Any = None,  # noqa: A002
    function_config: typing.Optional[FunctionConfig] = None,
) -> typing.Any:
    """Makes a function a job function; both generations of the decorator.

    Args:
        type: "train" or "predict", or, in the older form, a function_config.
        function_config: the settings.
    """
    if callable(type):
        return JobFunction(type, None, FunctionConfig())
    if isinstance(type, FunctionConfig):
        type, function_config = None, type  # noqa: A001
    if type not in (None, TRAIN, PREDICT):
        raise LegacyError(
            "oneflow.global_function(type={!r}): it may be {!r} or {!r}".format(
                type, TRAIN, PREDICT
            )
        )
    config = function_config or FunctionConfig()
    return lambda body: JobFunction(body, type, config)


class JobFunction:
    """A function whose body runs once, to be built, and which then is called with data."""

    def __init__(self, body: Body, kind: typing.Optional[str], config: FunctionConfig) -> None:
        self.__name__ = getattr(body, "__name__", "job")
        self.__doc__ = getattr(body, "__doc__", None)
        self._body = body
        self._kind = kind
        self._config = config
        self._signature = inspect.signature(body)
        self._trace: typing.Optional[Trace] = None
        self._result: typing.Any = None
        self._program: typing.Optional[Program] = None
        session.add(self)

    def __call__(self, *args: typing.Any, **keywords: typing.Any) -> typing.Any:
        """Computes one step on numpy arrays.

        Raises:
            LegacyError: an argument has not the shape that the function declares.
        """
        session.start()
        bound = self._signature.bind(*args, **keywords).arguments
        values = [self._checked(blob, bound[blob.name]) for blob in self.trace().arguments]
        with stopping.held():
            pending = PendingResult(self.program().step(values), self._result)
        annotation = self._signature.return_annotation
        if annotation is inspect.Signature.empty:
            return pending
        if isinstance(annotation, CallbackOf):
            return lambda callback: callback(pending.arrays())
        return pending.arrays()

    def trace(self) -> Trace:
        """Returns what the body said; runs it at the first call."""
        if self._trace is None:
            trace = Trace(self.__name__, self._config)
            with recording(trace):
                for parameter in self._signature.parameters.values():
                    trace.arguments.append(trace.add(self._placeholder(parameter)))
                self._result = self._run_body(trace)
            self._trace = trace
        return self._trace

    def program(self) -> Program:
        """Returns what computes this function; made at the first call."""
        if self._program is None:
            trace = self.trace()
            ends = list(_blobs_in(self._result))
            self._program = Program(
                trace, ends, self._rule(trace), session.start(), session.variables
            )
        return self._program

    def steps_done(self) -> int:
        """Returns how many training steps were started; it goes on from a loaded checkpoint's."""
        program = self._program
        return program.steps if program is not None and program.rule is not None else 0

    def _run_body(self, trace: Trace) -> typing.Any:
        try:
            return self._body(*trace.arguments)
        except TypeError as error:
            if "Blob" not in str(error):
                raise
            raise LegacyError(
                "job function {}: a function of OneFlow 0.9 was given a value of the job "
                "function, and cannot be recorded: {}; use the operators that docs/legacy.md "
                "lists".format(trace.job_name, error)
            ) from error

    def _rule(self, trace: Trace) -> typing.Optional[UpdateRule]:
        rule = trace.rule or self._config.train.rule()
        if self._kind == TRAIN and not trace.losses:
            raise LegacyError(
                'job function {}: type="train", but no optimizer\'s minimize(loss) is '
                "called in it".format(self.__name__)
            )
        if self._kind == PREDICT and trace.losses:
            raise LegacyError(
                'job function {}: it has a loss to train, but type="predict"; '
                'say type="train"'.format(self.__name__)
            )
        if trace.losses and rule is None:
            raise LegacyError(
                "job function {}: it has a loss but no learning rate; call "
                "config.train.primary_lr".format(self.__name__)
            )
        return rule if trace.losses else None

    def _placeholder(self, parameter: inspect.Parameter) -> Blob:
        for declared in (parameter.annotation, parameter.default):
            if isinstance(declared, TensorDef):
                dtype = declared.dtype or self._config.data_type or session.config.data_type
                return Blob(declared.shape, dtype or flow.float32, parameter.name)
        raise LegacyError(
            "job function {}: argument {} needs oneflow.typing.Numpy.Placeholder(shape) as its "
            "annotation, or oneflow.FixedTensorDef(shape) as its default".format(
                self.__name__, parameter.name
            )
        )

    def _checked(self, blob: Blob, value: typing.Any) -> Array:
        array: Array = np.array(value, dtype=numpy_dtype(blob.dtype), order="C", copy=False)
        if array.shape != blob.shape:
            raise LegacyError(
                "job function {}: argument {} has the shape {}, declared is {}".format(
                    self.__name__, blob.name, array.shape, blob.shape
                )
            )
        return array


class LegacyArray(np.ndarray):
    """What `.get()` gives: a numpy array that also answers ``.ndarray()`` and ``.numpy()``."""

    def ndarray(self) -> Array:
        """Returns the plain array."""
        return np.asarray(self)

    def numpy(self) -> Array:
        """Returns the plain array."""
        return np.asarray(self)


class PendingResult:
    """What a job function without an annotation returns: the result, once asked for."""

    def __init__(
        self,
        read: typing.Callable[[], typing.Dict[Blob, Array]],
        structure: typing.Any,
    ) -> None:
        self._read = read
        self._structure = structure

    def get(self) -> typing.Any:
        """Waits for the step and returns its values."""
        values = self._read()
        return _fill(self._structure, lambda blob: values[blob].view(LegacyArray))

    def async_get(self, callback: typing.Callable[[typing.Any], typing.Any]) -> None:
        """Calls back with what `get` returns, before this returns.

        The old API called back from another thread at some time, and scripts print totals after
        the loop without waiting; at once is the one order that makes these right.
        """
        callback(self.get())

    def arrays(self) -> typing.Any:
        """Waits for the step and returns its values as plain arrays."""
        values = self._read()
        return _fill(self._structure, lambda blob: values[blob])


def _blobs_in(structure: typing.Any) -> typing.Iterator[Blob]:
    if isinstance(structure, Blob):
        yield structure
    elif isinstance(structure, dict):
        for one in structure.values():
            yield from _blobs_in(one)
    elif isinstance(structure, (list, tuple)):
        for one in structure:
            yield from _blobs_in(one)


def _fill(structure: typing.Any, value_of: typing.Callable[[Blob], typing.Any]) -> typing.Any:
    if isinstance(structure, Blob):
        return value_of(structure)
    if isinstance(structure, dict):
        return {key: _fill(one, value_of) for key, one in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)(_fill(one, value_of) for one in structure)
    return structure
