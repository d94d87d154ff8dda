"""Long curves in few points: what stands out is there, in the curve and on the page."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from launcher.cli import charts
from launcher.core.envelope import Envelope

FINITE = st.floats(allow_nan=False, allow_infinity=False)
POINTS = st.lists(st.tuples(st.integers(-(10**6), 10**6), st.floats()), max_size=300)


def curve_of(points: list[tuple[int, float]], most: int = 20) -> Envelope:
    curve = Envelope(most)
    for x, y in points:
        curve.add(float(x), y)
    return curve


@given(POINTS)
def test_no_extreme_and_no_end_is_lost_however_the_points_come(
    points: list[tuple[int, float]],
) -> None:
    curve = curve_of(points)
    buckets = curve.buckets()
    assert len(buckets) <= 20
    shown = [spot for bucket in buckets for spot in bucket.points()]
    finite = [(float(x), y) for x, y in points if math.isfinite(y)]
    assert bool(shown) == bool(finite)
    if finite:
        assert min(y for _, y in shown) == min(y for _, y in finite)
        assert max(y for _, y in shown) == max(y for _, y in finite)
        assert shown[0][0] == min(x for x, _ in finite)
        assert shown[-1][0] == max(x for x, _ in finite)
        assert set(shown) <= set(finite), "no point is made up"
    assert sum(bucket.count for bucket in buckets) == len(points)
    odd = {float(x) for x, y in points if not math.isfinite(y)}
    assert min(odd, default=None) == min((b.odd[0] for b in buckets if b.odd), default=None)


def test_a_single_spike_among_a_hundred_thousand_points_is_there() -> None:
    curve = curve_of([(x, 99.0 if x == 61_803 else 1.0) for x in range(100_000)], most=50)
    assert (61_803.0, 99.0) in [spot for bucket in curve.buckets() for spot in bucket.points()]


def test_a_curve_can_be_narrowed_afterwards() -> None:
    curve = curve_of([(x, float(-x)) for x in range(-500, 500)], most=400)
    curve.narrow(1)
    assert len(curve.buckets()) <= 2
    assert curve.buckets()[0].points()[0] == (-500.0, 500.0)


@settings(max_examples=60, deadline=None)
@given(POINTS, FINITE, FINITE)
@example([], 2.5e-246, 2.5e-246)
@example([], 1e-320, 3e-320)
@example([], 1.0, 1.0000000000000002)
@example([], 0.0, 5e-324)
@example([], 0.0, -1.75e308)
@example([], -1.7e308, -1.7e308)
@example([], 1.7e308, -1.7e308)
def test_every_curve_can_be_drawn(
    points: list[tuple[int, float]], left: float, right: float
) -> None:
    line = charts.Line('<b>"rank"', curve_of([*points, (0, left), (1, right)]))
    band = charts.Line("band", line.curve, band=True)
    drawn = charts.chart([band, line], x_name="<step>")
    assert "<b>" not in drawn and "<step>" not in drawn
    for path in re.findall(r' d="([^"]*)"', drawn):
        assert "nan" not in path and "inf" not in path and "e" not in path
    places = [float(each) for each in re.findall(r"bottom:([^%]*)%", drawn)]
    assert all(-1 <= place <= 101 for place in places)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 10.0, [0.0, 5.0, 10.0]),
        (0.0, 0.0, [0.0]),
        (-1e308, 1e308, [-1e308]),
        (5.0, 1005.0, [500.0, 1000.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert charts.Span(low, high).ticks(3) == ticks
