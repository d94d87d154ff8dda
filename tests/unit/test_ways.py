"""Who dials whom, and whom to leave out."""

from __future__ import annotations

import doctest
import itertools

import pytest

from launcher.core import ways
from launcher.core.blocked_ways import Way
from launcher.core.ways import MESH_NODES, partners, to_leave_out


def test_the_examples_hold() -> None:
    failed, tried = doctest.testmod(ways)
    assert (failed, tried > 0) == (0, True)


@pytest.mark.parametrize("count", [1, 2, MESH_NODES])
def test_a_few_nodes_dial_all(count: int) -> None:
    assert list(partners(count)) == [tuple(range(count))] * count


@pytest.mark.parametrize("count", [MESH_NODES + 1, 64, 1000])
def test_many_nodes_dial_a_few_and_are_dialled_as_often(count: int) -> None:
    rows = list(partners(count))
    called = [0] * count
    for number, row in enumerate(rows):
        assert row[0] == number
        assert len(set(row)) == len(row) <= 12
        for target in row:
            called[target] += 1
    assert len(rows) == count
    assert set(called) == {len(rows[0])}


@pytest.mark.parametrize("count", [33, 40, 257])
def test_a_cut_between_any_two_halves_is_crossed(count: int) -> None:
    rows = list(partners(count))
    for half in (set(range(count // 2)), set(range(0, count, 2))):
        both_ways = {(a in half, b in half) for a, row in enumerate(rows) for b in row}
        assert both_ways == set(itertools.product((True, False), repeat=2))


def _way(source: str, target: str) -> Way:
    return Way(source, target, "timeout", (1,), True)


def test_the_node_that_reaches_nobody_is_left_out_and_no_other() -> None:
    assert to_leave_out([_way("n2", other) for other in ("n1", "n3", "n4")]) == ["n2"]


def test_the_node_that_nobody_reaches_is_left_out_and_no_other() -> None:
    assert to_leave_out([_way(other, "n2") for other in ("n1", "n3", "n4")]) == ["n2"]


def test_a_node_that_does_not_reach_itself_counts_once() -> None:
    assert to_leave_out([_way("n1", "n1"), _way("n3", "n2"), _way("n4", "n2")]) == ["n2", "n1"]


def test_nothing_blocked_leaves_nobody_out() -> None:
    assert to_leave_out([]) == []
