"""Curves as inline SVG. Pure.

A plot stretches to its place: nothing but lines is drawn in it, and their widths do not stretch.
Its labels are HTML around it, so that they are as legible on a telephone as on a wall.
"""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.core.envelope import Envelope

WIDTH, HEIGHT = 1000.0, 300.0
# Of anything narrower, the tenths are no numbers any more.
_LEAST_WIDTH = 1e-300
Spot = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve. `band` fills from the lows to the highs instead of following the points."""

    label: str
    curve: Envelope
    band: bool = False


@dataclass(frozen=True)
class Span:
    """From where to where an axis goes."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Returns where a value lies, 0 at the low end and 1 at the high one."""
        # Halved first: the difference of the largest numbers is none.
        width = self.high / 2 - self.low / 2
        return (value / 2 - self.low / 2) / width if width > 0 else 0.5

    def ticks(self, most: int) -> list[float]:
        """Returns round values within, at most so many.

        >>> Span(0.0, 9.7).ticks(5)
        [0.0, 2.0, 4.0, 6.0, 8.0]
        """
        width = self.high - self.low
        if not _LEAST_WIDTH < width < math.inf:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(width / most))
        factors = (1, 2, 5, 10, 20)
        step = next(
            power * factor for factor in factors if width / (power * factor) <= most - 0.001
        )
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        ticks = [float(f"{index * step:.12g}") for index in range(first, last + 1)]
        # Where the ends differ in their last digits only, a round value lies outside.
        return [tick for tick in ticks if self.low <= tick <= self.high] or [self.low]


def span_of(values: Sequence[float], *, margin: float = 0.0) -> Span:
    """Returns the span of values, a little wider where that is asked for."""
    if not values:
        return Span(0.0, 1.0)
    low, high = min(values), max(values)
    room = (high / 2 - low / 2) * margin * 2 if low < high else abs(low) * 0.1 or 1.0
    # The largest numbers have no room beyond them.
    return Span(max(low - room, -sys.float_info.max), min(high + room, sys.float_info.max))


def number(value: float) -> str:
    """Returns a number as a label.

    >>> number(1500000.0), number(0.25), number(0.0), number(12.0)
    ('1.5M', '0.25', '0', '12')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size <= abs(value) < size * 1000:
            scale = 1e3 if unit == "k" else size
            return f"{value / scale:.4g}{unit}"
    return f"{value:.4g}"


def chart(lines: Sequence[Line], *, x_name: str, tall: bool = False) -> str:
    """Returns a chart of curves over one axis; colours go by their order."""
    buckets = [bucket for line in lines for bucket in line.curve.buckets()]
    points = [point for bucket in buckets for point in bucket.points()]
    odd = sorted({bucket.odd for bucket in buckets if bucket.odd is not None})
    xs = span_of([x for x, _ in points] + [x for x, _ in odd])
    ys = span_of([y for _, y in points], margin=0.04)
    bands = "".join(_band(line, xs, ys) for line in lines if line.band)
    curves = [line for line in lines if not line.band]
    # The first one lies on top.
    drawn = "".join(_drawn(line, n, xs, ys) for n, line in reversed(list(enumerate(curves))))
    marks = "".join(
        f'<path class="odd" d="M{_at(xs, x)} 0V{HEIGHT:g}"><title>{y} at {html.escape(x_name)} '
        f"{number(x)}</title></path>"
        for x, y in odd[:200]
    )
    grid = "".join(f'<path class="grid" d="M0 {_down(ys, y)}H{WIDTH:g}"/>' for y in ys.ticks(4))
    return (
        f'<div class="chart{" tall" if tall else ""}">{_y_labels(ys)}'
        f'<div class="plot" data-x0="{xs.low!r}" data-x1="{xs.high!r}" '
        f'data-x="{html.escape(x_name)}">'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.escape(", ".join(line.label for line in lines))}">'
        f"{grid}{bands}{drawn}{marks}</svg><div class=tip hidden></div></div>"
        f"{_x_labels(xs, x_name)}</div>"
    )


def _band(line: Line, xs: Span, ys: Span) -> str:
    buckets = [bucket for bucket in line.curve.buckets() if bucket.points()]
    above = [(bucket.first[0], bucket.high[1]) for bucket in buckets]
    below = [(bucket.first[0], bucket.low[1]) for bucket in reversed(buckets)]
    data = _path([*above, *below], xs, ys)
    return f'<path class="band" d="{data}Z"><title>{html.escape(line.label)}</title></path>'


def _drawn(line: Line, index: int, xs: Span, ys: Span) -> str:
    label = html.escape(line.label)
    points = [point for bucket in line.curve.buckets() for point in bucket.points()]
    if len(points) == 1:
        points *= 2
    ends = html.escape(_values(line.curve))
    data = _path(points, xs, ys)
    return f'<path class="line c{index % 6}" d="{data}" data-label="{label}" data-values="{ends}"/>'


def _values(curve: Envelope) -> str:
    """Returns what the pointer reads of a curve: x and the newest y of some buckets."""
    buckets = [bucket for bucket in curve.buckets() if bucket.points()]
    every = max(1, math.ceil(len(buckets) / 200))
    return " ".join(f"{b.last[0]:.8g},{b.last[1]:.5g}" for b in buckets[::every])


def _path(points: Sequence[Spot], xs: Span, ys: Span) -> str:
    return "M" + "L".join(f"{_at(xs, x)} {_down(ys, y)}" for x, y in points) if points else "M0 0"


def _at(xs: Span, x: float) -> str:
    return f"{xs.share(x) * WIDTH:.1f}"


def _down(ys: Span, y: float) -> str:
    return f"{(1 - ys.share(y)) * HEIGHT:.1f}"


def _y_labels(ys: Span) -> str:
    ticks = "".join(
        f'<span style="bottom:{100 * ys.share(y):.2f}%">{number(y)}</span>' for y in ys.ticks(4)
    )
    return f'<div class="y">{ticks}</div>'


def _x_labels(xs: Span, name: str, *, whole: bool = False) -> str:
    ticks = "".join(
        f'<span style="left:{100 * xs.share(x):.2f}%">{number(x)}</span>'
        for x in xs.ticks(4)
        if not whole or x == int(x)
    )
    return f'<div class="x">{ticks}</div><div class="name">{html.escape(name)}</div>'


def spark(curve: Envelope, high: float | None = None) -> str:
    """Returns a small curve without labels, from 0 to `high` where that is given."""
    points = [point for bucket in curve.buckets() for point in bucket.points()]
    if not points:
        return ""
    xs = span_of([x for x, _ in points])
    ys = Span(0.0, high) if high is not None else span_of([y for _, y in points], margin=0.1)
    data = _path(points if len(points) > 1 else points * 2, xs, ys)
    return (
        f'<svg class="spark" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" '
        f'aria-hidden="true"><path class="line c0" d="{data}"/></svg>'
    )


def dots(values: Sequence[tuple[float, float]], limits: Sequence[float], x_name: str) -> str:
    """Returns a dot for each (x, y), those over the last limit in another colour and shape."""
    xs = span_of([x for x, _ in values], margin=0.02)
    ys = span_of([*(y for _, y in values), *limits, 0.0], margin=0.04)
    ys = Span(0.0, ys.high)
    fine = [spot for spot in values if spot[1] <= limits[-1]]
    slow = [spot for spot in values if spot[1] > limits[-1]]
    marks = "".join(
        f'<path class="{kind}" d="{"".join(f"M{_at(xs, x)} {_down(ys, y)}h0" for x, y in spots)}"/>'
        for kind, spots in (("dot", fine), ("dot slow", slow))
        if spots
    )
    lines = "".join(f'<path class="limit" d="M0 {_down(ys, y)}H{WIDTH:g}"/>' for y in limits)
    return (
        f'<div class="chart">{_y_labels(ys)}<div class="plot">'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="step time by rank">{lines}{marks}</svg></div>'
        f"{_x_labels(xs, x_name, whole=True)}</div>"
    )
