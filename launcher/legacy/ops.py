"""The old operators. In a job function they record; given today's tensors they compute at once."""

from __future__ import annotations

import typing

import oneflow as flow

from launcher.legacy import shapes
from launcher.legacy.blob import Blob, Mask, apply, current_trace
from launcher.legacy.unsupported import LegacyError, refuse

Padding = typing.Union[str, typing.Sequence[typing.Sequence[int]]]
Numbers = typing.Union[int, typing.Sequence[int]]


def relu(x: typing.Any, name: typing.Optional[str] = None) -> typing.Any:
    """Returns max(x, 0)."""
    return apply(name or "relu", flow.relu, tuple(x.shape), x.dtype, x)


def reshape(
    x: typing.Any,
    shape: typing.Optional[typing.Sequence[int]] = None,
    name: typing.Optional[str] = None,
) -> typing.Any:
    """Returns x in another shape; one size may be -1."""
    if not isinstance(x, Blob):
        return flow.reshape(x, shape)
    sizes = shapes.reshaped(x.shape, shape or ())
    return apply(name or "reshape", lambda t: flow.reshape(t, sizes), sizes, x.dtype, x)


def transpose(a: typing.Any, *today: typing.Any, **keywords: typing.Any) -> typing.Any:
    """Permutes the axes by ``perm``; a tensor of today with two axes swaps them, as today."""
    if not isinstance(a, Blob) and "perm" not in keywords:
        return flow.transpose(a, *today, **keywords)
    perm = keywords.pop("perm", None) or (today[0] if today else range(len(a.shape))[::-1])
    name = keywords.pop("name", None) or "transpose"
    refuse("oneflow.transpose", dict(keywords, more=today[1:] or None))
    axes = [int(axis) for axis in perm]
    shape = tuple(a.shape[axis] for axis in axes)
    return apply(name, lambda t: flow.permute(t, axes), shape, a.dtype, a)


def conv2d(
    input: typing.Any,  # noqa: A002
    filters: typing.Any,
    strides: Numbers = 1,
    padding: Padding = "VALID",
    data_format: str = "NCHW",
    dilations: typing.Optional[Numbers] = None,
    groups: int = 1,
    name: typing.Optional[str] = None,
) -> typing.Any:
    """Convolves images with filters.

    Args:
        input: (n, c, h, w), or (n, h, w, c) in NHWC.
        filters: (out, c / groups, kh, kw), or (out, kh, kw, c) in NHWC.
        strides: of height and width.
        padding: VALID, SAME (an odd pixel before), SAME_UPPER, or four pairs.
        data_format: NCHW or NHWC.
        dilations: of height and width, 1 where None.
        groups: of channels.
        name: what an error calls the result.
    """
    layout = shapes.data_format_of(data_format)
    kernel = tuple(int(filters.shape[axis]) for axis in shapes.SIZES[layout])
    window = _Window(input, layout, kernel, strides, padding, dilations)
    channels = input.shape[1 if layout == "NCHW" else 3]
    if channels != filters.shape[1 if layout == "NCHW" else 3] * groups:
        raise LegacyError(
            "oneflow.nn.conv2d {}: input has {} channels, filters {} are for others".format(
                name or "", channels, tuple(filters.shape)
            )
        )

    def compute(x: typing.Any, weight: typing.Any) -> typing.Any:
        x, pads = window.enter(x, 0.0)
        kernels = weight if layout == "NCHW" else flow.permute(weight, [0, 3, 1, 2])
        return window.leave(
            flow.nn.functional.conv2d(
                x, kernels, None, window.strides, pads, window.dilations, groups
            )
        )

    shape = window.out_shape(int(filters.shape[0]))
    return apply(name or "conv2d", compute, shape, input.dtype, input, filters)


def max_pool2d(
    input: typing.Any,  # noqa: A002
    ksize: Numbers,
    strides: Numbers,
    padding: Padding,
    data_format: str = "NCHW",
    ceil_mode: typing.Optional[bool] = None,
    name: typing.Optional[str] = None,
) -> typing.Any:
    """Returns the greatest of each window; parameters as in `conv2d`."""
    refuse("oneflow.nn.max_pool2d", {"ceil_mode": ceil_mode or None})
    window = _pool_window(input, ksize, strides, padding, data_format)

    def compute(x: typing.Any) -> typing.Any:
        x, pads = window.enter(x, -3.0e38)
        return window.leave(flow.nn.functional.max_pool2d(x, window.kernel, window.strides, pads))

    return apply(name or "max_pool2d", compute, window.out_shape(), input.dtype, input)


def avg_pool2d(
    input: typing.Any,  # noqa: A002
    ksize: Numbers,
    strides: Numbers,
    padding: Padding,
    data_format: str = "NCHW",
    ceil_mode: typing.Optional[bool] = None,
    name: typing.Optional[str] = None,
) -> typing.Any:
    """Returns the mean of each window, of its pixels inside the image only."""
    refuse("oneflow.nn.avg_pool2d", {"ceil_mode": ceil_mode or None})
    window = _pool_window(input, ksize, strides, padding, data_format)

    def mean(x: typing.Any, inner_only: bool) -> typing.Any:
        x, pads = window.enter(x, 0.0)
        return window.leave(
            flow.nn.functional.avg_pool2d(
                x, window.kernel, window.strides, pads, count_include_pad=not inner_only
            )
        )

    def compute(x: typing.Any) -> typing.Any:
        if not window.uneven:
            return mean(x, inner_only=True)
        # Padding that was added as pixels counts as pixels: divide by the share inside.
        return mean(x, inner_only=False) / mean(flow.ones_like(x), inner_only=False)

    return apply(name or "avg_pool2d", compute, window.out_shape(), input.dtype, input)


def bias_add(
    value: typing.Any,
    bias: typing.Any,
    data_format: typing.Optional[str] = None,
    name: typing.Optional[str] = None,
) -> typing.Any:
    """Adds a bias to each channel: axis 1, but the last in NHWC."""
    last = data_format is not None and data_format.upper() == "NHWC"
    axis = len(value.shape) - 1 if last else 1

    def compute(x: typing.Any, b: typing.Any) -> typing.Any:
        return flow._C.bias_add(x, b, axis=axis)

    shape = tuple(value.shape)
    if int(bias.shape[0]) != int(shape[axis]):
        raise LegacyError(
            "oneflow.nn.bias_add {}: a bias of {} for {} channels".format(
                name or "", bias.shape[0], shape[axis]
            )
        )
    return apply(name or "bias_add", compute, shape, value.dtype, value, bias)


def dropout(
    x: typing.Any,
    rate: float,
    noise_shape: typing.Any = None,
    seed: typing.Optional[int] = None,
    name: typing.Optional[str] = None,
) -> typing.Any:
    """Zeroes a share of x while training and scales the rest; else returns x.

    The elements are drawn from the dropout's name and the step, so that any number of workers
    drops the same ones.
    """
    refuse("oneflow.nn.dropout", {"noise_shape": noise_shape, "seed": seed})
    if not isinstance(x, Blob):
        return flow.nn.functional.dropout(x, p=rate)
    if rate <= 0.0:
        return x
    trace = current_trace("oneflow.nn.dropout")
    label = name or "dropout-{}".format(len(trace.masks))
    mask = trace.add(Blob(x.shape, x.dtype, label + "-mask"))
    trace.masks.append(Mask(mask, rate))
    return trace.add(Blob(x.shape, x.dtype, label, lambda t, m: t * m, (x, mask), True))


def sparse_softmax_cross_entropy_with_logits(
    labels: typing.Any, logits: typing.Any, name: typing.Optional[str] = None
) -> typing.Any:
    """Returns each row's cross entropy.

    Args:
        labels: (n,) or (n, 1), int32 or int64: the class of each row.
        logits: (n, classes).
        name: what an error calls the result.
    """
    rows = (int(logits.shape[0]),)
    if tuple(labels.shape) not in (rows, (*rows, 1)):
        raise LegacyError(
            "oneflow.nn.sparse_softmax_cross_entropy_with_logits {}: labels {} for logits {}; "
            "labels come first".format(name or "", tuple(labels.shape), tuple(logits.shape))
        )

    def compute(classes: typing.Any, scores: typing.Any) -> typing.Any:
        return flow._C.sparse_softmax_cross_entropy(scores, flow.reshape(classes, rows))

    return apply(name or "softmax_loss", compute, rows, logits.dtype, labels, logits)


def _pool_window(
    images: typing.Any, ksize: Numbers, strides: Numbers, padding: Padding, data_format: str
) -> _Window:
    return _Window(
        images, shapes.data_format_of(data_format), shapes.pair(ksize), strides, padding, 1
    )


class _Window:
    """The geometry that convolution and pooling share, for one input."""

    def __init__(
        self,
        images: typing.Any,
        layout: str,
        kernel: shapes.Shape,
        strides: Numbers,
        padding: Padding,
        dilations: typing.Optional[Numbers],
    ) -> None:
        self.layout = layout
        self.kernel = list(kernel)
        self.strides = list(shapes.pair(strides))
        self.dilations = list(shapes.pair(dilations))
        self.batch = int(images.shape[0])
        self.channels = int(images.shape[1 if layout == "NCHW" else 3])
        self.sizes = tuple(int(images.shape[axis]) for axis in shapes.SIZES[layout])
        self.pads = shapes.window_pads(
            padding, self.sizes, kernel, tuple(self.strides), tuple(self.dilations), layout
        )
        self.uneven = any(before != after for before, after in self.pads)

    def out_shape(self, channels: int = 0) -> shapes.Shape:
        """Returns the result's shape in the input's layout; 0 keeps the channels."""
        parts = zip(self.sizes, self.kernel, self.strides, self.dilations, self.pads)
        height, width = (shapes.window_size(*part) for part in parts)
        channels = channels or self.channels
        if self.layout == "NCHW":
            return (self.batch, channels, height, width)
        return (self.batch, height, width, channels)

    def enter(self, x: typing.Any, fill: float) -> typing.Tuple[typing.Any, typing.List[int]]:
        """Returns x in NCHW, with uneven pads filled in, and the even pads still to apply."""
        if self.layout == "NHWC":
            x = flow.permute(x, [0, 3, 1, 2])
        (top, bottom), (left, right) = self.pads
        if not self.uneven:
            return x, [top, left]
        return flow._C.pad(x, [left, right, top, bottom], mode="constant", value=fill), [0, 0]

    def leave(self, x: typing.Any) -> typing.Any:
        """Returns x in the input's layout."""
        return x if self.layout == "NCHW" else flow.permute(x, [0, 2, 3, 1])
