"""Ranges and sets, against ClusterShell's own reading of them."""

from __future__ import annotations

import pytest
from ClusterShell.NodeSet import NodeSet
from hypothesis import given
from hypothesis import strategies as st

from launcher.core.nodeset import MOST_NODES, SetError, evaluate, expand, fold

_BOUNDS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted)
_WIDTHS = st.sampled_from([1, 2, 3])


@st.composite
def _terms(draw: st.DrawFn) -> str:
    first, last = draw(_BOUNDS)
    width = draw(_WIDTHS) if last < 10 else max(2, draw(_WIDTHS))
    step = draw(st.sampled_from(["", "/2", "/3"]))
    stem = draw(st.sampled_from(["n", "gpu"]))
    return f"{stem}[{first:0{width}}-{last:0{width}}{step}]"


@given(_terms())
def test_a_range_is_what_clustershell_reads(term: str) -> None:
    assert list(expand(term)) == list(NodeSet(term))


@given(st.lists(_terms(), min_size=1, max_size=5), st.data())
def test_sets_come_to_what_clustershell_says(terms: list[str], data: st.DataObject) -> None:
    expression = terms[0]
    for term in terms[1:]:
        expression += data.draw(st.sampled_from(",!&^")) + term
    assert evaluate(expression, {}).chosen == frozenset(NodeSet(expression))


@given(st.lists(_terms(), min_size=1, max_size=3))
def test_what_is_folded_expands_again(terms: list[str]) -> None:
    names = {name for term in terms for name in expand(term)}
    assert evaluate(fold(names), {}).chosen == names


def test_several_ranges_in_a_name() -> None:
    assert expand("r[1-2]n[08,1]") == ("r1n08", "r1n1", "r2n08", "r2n1")


def test_long_lists_are_shortened() -> None:
    assert fold(f"n{number}" for number in range(600)) == "n[0-599]"
    assert fold(f"10.0.{number}.1" for number in range(600)).endswith(",10.0.7.1 and 592 more")


@pytest.mark.parametrize(
    "expression",
    [
        "n[1-999999999]",
        "r[1-99999]n[1-99999]",
        f"n[1-{MOST_NODES}],m[1-{MOST_NODES}],o[1-{MOST_NODES}]",
        "n[1-9999999999999999999]",
    ],
)
def test_a_set_beyond_all_bounds_is_refused_before_it_takes_memory(expression: str) -> None:
    with pytest.raises(SetError):
        evaluate(expression, {})


@given(st.text(alphabet="ab12[]-/,!&^@ ", max_size=30))
def test_any_text_is_a_set_or_an_error(expression: str) -> None:
    try:
        evaluate(expression, {"a": ("a1",)})
    except SetError as error:
        assert "\n" not in str(error)
