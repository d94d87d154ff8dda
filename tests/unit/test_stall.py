"""The words for whom the others wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core import stall
from launcher.core import state as core
from tests.unit.test_state import Run


def run_with(phases: dict[int, core.WorkerPhase]) -> Run:
    run = Run({rank: f"gpu{rank // 2}" for rank in phases})
    run.start()
    for rank, phase in phases.items():
        if phase is not core.WorkerPhase.STARTED:
            run.take(f"gpu{rank // 2}", core.WorkerReported(rank, phase))
    return run


STARTED, IMPORTING, JOINED = (
    core.WorkerPhase.STARTED,
    core.WorkerPhase.IMPORTING,
    core.WorkerPhase.JOINED,
)


def test_the_rank_that_has_not_begun_is_the_one_that_is_waited_for() -> None:
    run = run_with({0: IMPORTING, 1: IMPORTING, 2: STARTED})
    assert stall.waited_for(run.state, run.now + 12) == (
        "waiting for gpu1:2 (has not imported oneflow, 12 s)"
    )


def test_a_rank_that_is_alone_in_its_import() -> None:
    run = run_with({0: JOINED, 1: JOINED, 2: JOINED, 3: IMPORTING})
    words = stall.waited_for(run.state, run.now + 12)
    assert words == "waiting for gpu1:3 (importing oneflow, 12 s)"


def test_only_a_few_of_many_are_named() -> None:
    run = run_with(dict.fromkeys(range(1000), IMPORTING))
    words = stall.waited_for(run.state, run.now + 60)
    assert words.endswith("gpu1:3 (importing oneflow, 60 s) and 996 more")


@pytest.mark.parametrize(
    "phases",
    [
        {0: STARTED, 1: STARTED},  # perhaps no program that uses oneflow
        {0: JOINED, 1: JOINED},
    ],
)
def test_where_nobody_waits_nothing_is_said(phases: dict[int, core.WorkerPhase]) -> None:
    run = run_with(phases)
    assert stall.waited_for(run.state, run.now + 60) == ""


def test_a_quick_start_is_no_stall() -> None:
    run = run_with({0: IMPORTING, 1: STARTED})
    assert stall.waited_for(run.state, run.now + stall.PATIENCE_S - 0.1) == ""


@given(
    phases=st.dictionaries(
        st.integers(0, 50), st.sampled_from([STARTED, IMPORTING, JOINED]), min_size=1
    ),
    later_s=st.floats(0, 1e6),
)
def test_whoever_is_named_has_not_joined(
    phases: dict[int, core.WorkerPhase], later_s: float
) -> None:
    run = run_with({**phases, 0: phases.get(0, STARTED)})
    words = stall.waited_for(run.state, run.now + later_s)
    for rank, phase in phases.items():
        if phase is JOINED:
            assert f":{rank} (" not in words
