"""Shape arithmetic of the old operators. Pure: integers in, integers out."""

from __future__ import annotations

import typing

Shape = typing.Tuple[int, ...]
Pads = typing.Tuple[typing.Tuple[int, int], ...]
SIZES = {"NCHW": (2, 3), "NHWC": (1, 2)}


def pair(value: typing.Union[int, typing.Sequence[int], None], default: int = 1) -> Shape:
    """Returns the value for height and width.

    >>> pair(3), pair([2]), pair((1, 2)), pair(None)
    ((3, 3), (2, 2), (1, 2), (1, 1))
    """
    if value is None:
        value = default
    if isinstance(value, int):
        return (value, value)
    numbers = tuple(int(number) for number in value)
    return numbers * 2 if len(numbers) == 1 else numbers


def data_format_of(data_format: str) -> str:
    """Returns the layout, checked.

    Raises:
        ValueError: it is neither NCHW nor NHWC.
    """
    layout = data_format.upper()
    if layout not in SIZES:
        raise ValueError("data_format is {!r}; it may be NCHW or NHWC".format(data_format))
    return layout


def window_pads(
    padding: typing.Union[str, typing.Sequence[typing.Sequence[int]]],
    sizes: Shape,
    kernel: Shape,
    strides: Shape,
    dilations: Shape,
    layout: str,
) -> Pads:
    """Returns (before, after) for height and width.

    The old "SAME" is "SAME_LOWER": an odd pixel of padding goes before.

    >>> window_pads("SAME", (28, 28), (5, 5), (1, 1), (1, 1), "NCHW")
    ((2, 2), (2, 2))
    >>> window_pads("SAME", (5, 4), (2, 2), (2, 2), (1, 1), "NCHW")
    ((1, 0), (0, 0))
    >>> window_pads([(0, 0), (0, 0), (1, 2), (3, 4)], (9, 9), (2, 2), (1, 1), (1, 1), "NCHW")
    ((1, 2), (3, 4))

    Raises:
        ValueError: padding is no word of the old API, or a list without four pairs.
    """
    if not isinstance(padding, str):
        if len(padding) != 4 or any(len(pads) != 2 for pads in padding):
            raise ValueError("padding is {!r}; a list holds four pairs".format(padding))
        return tuple((int(padding[i][0]), int(padding[i][1])) for i in SIZES[layout])
    word = padding.upper()
    if word == "VALID":
        return ((0, 0), (0, 0))
    if word not in ("SAME", "SAME_LOWER", "SAME_UPPER"):
        raise ValueError(
            "padding is {!r}; it may be VALID, SAME, SAME_LOWER, SAME_UPPER or four pairs".format(
                padding
            )
        )
    windows = zip(sizes, kernel, strides, dilations)
    return tuple(_same_pads(*window, upper=word == "SAME_UPPER") for window in windows)


def _same_pads(
    size: int, kernel: int, stride: int, dilation: int, upper: bool
) -> typing.Tuple[int, int]:
    out = -(-size // stride)
    needed = max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - size)
    small, large = needed // 2, needed - needed // 2
    return (small, large) if upper else (large, small)


def window_size(size: int, kernel: int, stride: int, dilation: int, pads: Shape) -> int:
    """Returns how many windows fit.

    >>> window_size(227, 11, 4, 1, (0, 0))
    55

    Raises:
        ValueError: not one fits.
    """
    out = (size + sum(pads) - (kernel - 1) * dilation - 1) // stride + 1
    if out < 1:
        raise ValueError("a window of {} does not fit into {} pixels".format(kernel, size))
    return out


def reshaped(shape: Shape, wanted: typing.Sequence[int]) -> Shape:
    """Returns the wanted shape with its -1 filled in.

    >>> reshaped((100, 64, 7, 7), [100, -1])
    (100, 3136)

    Raises:
        ValueError: the counts of elements differ.
    """
    sizes = [int(size) for size in wanted]
    count = _count(shape)
    if sizes.count(-1) == 1:
        rest = _count(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = count // rest if rest else 0
    if -1 in sizes or _count(sizes) != count:
        raise ValueError("{} elements of {} do not fit {}".format(count, shape, tuple(wanted)))
    return tuple(sizes)


def broadcast(left: Shape, right: Shape) -> Shape:
    """Returns the shape of an element-wise operation.

    >>> broadcast((4, 1, 3), (2, 1))
    (4, 2, 3)

    Raises:
        ValueError: the shapes do not go together.
    """
    length = max(len(left), len(right))
    pairs = zip((1,) * (length - len(left)) + left, (1,) * (length - len(right)) + right)
    out = []
    for one, other in pairs:
        if one != other and 1 not in (one, other):
            raise ValueError("shapes {} and {} do not go together".format(left, right))
        out.append(max(one, other) if 0 not in (one, other) else 0)
    return tuple(out)


def _count(sizes: typing.Iterable[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count
