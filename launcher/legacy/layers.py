"""Variables by name, and the layers that make their own."""

from __future__ import annotations

import contextlib
import typing

import oneflow as flow

from launcher.legacy import initializers, ops, shapes
from launcher.legacy.blob import Blob, apply, current_trace
from launcher.legacy.session import session
from launcher.legacy.unsupported import LegacyError, refuse
from launcher.legacy.variables import VariableSpec

Activation = typing.Optional[typing.Callable[..., typing.Any]]


def get_variable(
    name: str,
    shape: typing.Optional[typing.Sequence[int]] = None,
    dtype: typing.Any = None,
    initializer: typing.Any = None,
    regularizer: typing.Any = None,
    trainable: bool = True,
    model_name: typing.Optional[str] = None,
    random_seed: typing.Optional[int] = None,
    distribute: typing.Any = None,
    reuse: bool = True,
) -> Blob:
    """Returns the variable of that name, shared by all job functions.

    Args:
        name: its name; the scope's namespaces go before it.
        shape: its shape; may be left out where another job function gave it.
        dtype: its dtype, float32 where None.
        initializer: one of this API's initializers.
        regularizer: not covered.
        trainable: whether optimizers change it.
        model_name: without effect.
        random_seed: not covered: the name is the seed.
        distribute: not covered.
        reuse: without effect.

    Raises:
        LegacyError: another job function gave it another shape or dtype.
    """
    del model_name, reuse
    refuse(
        "oneflow.get_variable",
        {"regularizer": regularizer, "random_seed": random_seed, "distribute": distribute},
    )
    trace = current_trace("oneflow.get_variable")
    whole = "-".join([*trace.namespaces, name])
    if whole not in trace.variables:
        spec = _declare(whole, shape, dtype or flow.float32, initializer, trainable)
        blob = Blob(spec.shape, spec.dtype, whole)
        trace.variables[whole] = trace.add(blob)
    return trace.variables[whole]


def _declare(
    name: str,
    shape: typing.Optional[typing.Sequence[int]],
    dtype: typing.Any,
    initializer: typing.Any,
    trainable: bool,
) -> VariableSpec:
    known = session.variables.spec(name)
    if shape is None:
        if known is None:
            raise LegacyError("variable {}: its first use has to give a shape".format(name))
        return known
    if not callable(initializer):
        raise LegacyError(
            "variable {}: the initializer is {!r}; use e.g. "
            "flow.random_uniform_initializer()".format(name, initializer)
        )
    sizes = tuple(int(size) for size in shape)
    return session.variables.declare(VariableSpec(name, sizes, dtype, initializer, trainable))


@contextlib.contextmanager
def namespace(name: str) -> typing.Iterator[None]:
    """Puts ``name-`` before the names of the variables made inside."""
    names = current_trace("oneflow.scope.namespace").namespaces
    names.append(name)
    try:
        yield
    finally:
        names.pop()


def conv2d(
    inputs: Blob,
    filters: int,
    kernel_size: ops.Numbers = 1,
    strides: ops.Numbers = 1,
    padding: ops.Padding = "VALID",
    data_format: str = "NCHW",
    dilation_rate: typing.Optional[ops.Numbers] = None,
    groups: int = 1,
    activation: Activation = None,
    use_bias: bool = True,
    kernel_initializer: typing.Any = None,
    bias_initializer: typing.Any = None,
    kernel_regularizer: typing.Any = None,
    bias_regularizer: typing.Any = None,
    trainable: bool = True,
    name: str = "Conv2d",
    weight_name: typing.Optional[str] = None,
    bias_name: typing.Optional[str] = None,
) -> Blob:
    """A convolution with its variables ``<name>-weight`` and ``<name>-bias``.

    Parameters are those of `ops.conv2d`; the kernel begins as Glorot's uniform one where no
    initializer is given, the bias as zeros. weight_name and bias_name are whole names.
    """
    refuse(
        "oneflow.layers.conv2d",
        {"kernel_regularizer": kernel_regularizer, "bias_regularizer": bias_regularizer},
    )
    height, width = shapes.pair(kernel_size)
    channels = inputs.shape[1 if shapes.data_format_of(data_format) == "NCHW" else 3] // groups
    inner = (channels, height, width) if data_format == "NCHW" else (height, width, channels)
    weight = get_variable(
        weight_name or name + "-weight",
        (filters, *inner),
        inputs.dtype,
        kernel_initializer or initializers.xavier_uniform_initializer(data_format),
        trainable=trainable,
    )
    out = ops.conv2d(inputs, weight, strides, padding, data_format, dilation_rate, groups, name)
    if use_bias:
        bias = _bias(bias_name or name + "-bias", out, filters, bias_initializer, trainable)
        out = ops.bias_add(out, bias, data_format, name=name + "-bias_add")
    return _activate(out, activation, name)


def dense(
    inputs: Blob,
    units: int,
    activation: Activation = None,
    use_bias: bool = True,
    kernel_initializer: typing.Any = None,
    bias_initializer: typing.Any = None,
    kernel_regularizer: typing.Any = None,
    bias_regularizer: typing.Any = None,
    trainable: bool = True,
    name: str = "Dense",
    model_distribute: typing.Any = None,
) -> Blob:
    """A fully connected layer: inputs (…, n) to (…, units), weight (units, n).

    Its variables are ``<name>-weight`` and ``<name>-bias``; both begin as zeros where no
    initializer is given, as in the old API.
    """
    refuse(
        "oneflow.layers.dense",
        {
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
            "model_distribute": model_distribute,
        },
    )
    weight = get_variable(
        name + "-weight",
        (units, inputs.shape[-1]),
        inputs.dtype,
        kernel_initializer or initializers.zeros_initializer(),
        trainable=trainable,
    )
    rows = ops.reshape(inputs, (-1, inputs.shape[-1])) if len(inputs.shape) > 2 else inputs
    shape = (rows.shape[0], units)
    out = apply(name + "-matmul", _matmul_transposed, shape, inputs.dtype, rows, weight)
    if use_bias:
        bias = _bias(name + "-bias", out, units, bias_initializer, trainable)
        out = ops.bias_add(out, bias, name=name + "-bias_add")
    out = _activate(out, activation, name)
    return typing.cast(Blob, ops.reshape(out, (*inputs.shape[:-1], units)))


def _matmul_transposed(rows: typing.Any, weight: typing.Any) -> typing.Any:
    return flow.matmul(rows, weight, transpose_b=True)


def _bias(name: str, out: Blob, size: int, initializer: typing.Any, trainable: bool) -> Blob:
    begin = initializer or initializers.zeros_initializer()
    return get_variable(name, (size,), out.dtype, begin, trainable=trainable)


def _activate(out: Blob, activation: Activation, name: str) -> Blob:
    if activation is None:
        return out
    return typing.cast(Blob, activation(out, name=name + "-activation"))
