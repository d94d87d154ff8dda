"""A run that hangs: noticed, asked where it stands, and stopped; and what only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core import hang, stacks
from launcher.core import state as core
from launcher.core.standing import first_error
from launcher.errors import EXIT_TIMEOUT
from launcher.run.silence import Silence
from launcher.wire import events as wire
from tests.unit.test_state import Run, kinds

FAULTHANDLER = """Thread 0x00007f51 (most recent call first):
  File "/usr/lib/python3.10/threading.py", line 320 in wait
  File "/usr/lib/python3.10/threading.py", line 973 in _bootstrap

Current thread 0x00007f52 (most recent call first):
  File "/r/work/train.py", line {line} in step
  File "/r/work/train.py", line 20 in <module>
  File "/usr/lib/python3.10/runpy.py", line 86 in _run_code
  File "/root/.flowlaunch/agent/ab/launcher/agent/bootstrap.py", line 140 in _run
"""
PY_SPY = """Process 12: python bootstrap.py script train.py
Python v3.10.13 (/usr/bin/python3.10)

Thread 12 (active): "MainThread"
    step (train.py:7)
    <module> (train.py:20)
    _run_code (runpy.py:86)
    _run (launcher/agent/bootstrap.py:140)
Thread 13 (idle): "Thread-1 (sleep)"
    wait (threading.py:320)
"""
PLACE = ("train.py:7 step", "train.py:20 <module>")


@pytest.mark.parametrize("text", [FAULTHANDLER.format(line=7), PY_SPY])
def test_the_jobs_own_frames_of_the_main_thread_are_read(text: str) -> None:
    assert stacks.parse(text) == PLACE


@given(st.text())
def test_whatever_a_worker_writes_is_read_as_something(text: str) -> None:
    assert isinstance(stacks.parse(text), tuple)


@given(st.dictionaries(st.integers(0, 99), st.sampled_from("abc").map(lambda word: (word,))))
def test_folding_loses_no_rank_and_the_odd_ones_are_fewer(
    found: dict[int, stacks.Stack],
) -> None:
    groups = stacks.fold(found)
    assert sorted(rank for group in groups for rank in group.ranks) == sorted(found)
    assert all(found[rank] == group.stack for group in groups for rank in group.ranks)
    odd = stacks.odd_ranks(groups)
    assert 2 * len(odd) < max(1, len(found))


def answer(quiet_s: float = 60.0, **lines: int) -> wire.StacksCollected:
    told = {rank[1:]: FAULTHANDLER.format(line=line) for rank, line in lines.items()}
    return wire.StacksCollected(quiet_s, wire.pack_json(told))


def suspected() -> Run:
    run = Run()
    run.start()
    assert run.take("", core.FellSilent(30.0)) == [core.AskStacks()]
    return run


def test_a_run_that_hangs_is_stopped_and_the_odd_rank_named() -> None:
    run = suspected()
    assert run.take("", core.FellSilent(30.0)) == [], "it has been asked"
    assert run.take("n1", answer(r0=7, r1=9)) == []
    assert kinds(run.take("n2", answer(r2=7))) == [core.StopAll]
    assert run.state.stop_reason is core.StopReason.HUNG
    assert run.code == EXIT_TIMEOUT
    assert run.state.suspicion is not None
    assert hang.headline(run.state.suspicion) == (
        "no output, no metric and no step for 30 s on any rank; "
        "rank 1 stands elsewhere than the others: train.py:9 step"
    )
    assert hang.described(run.state.suspicion) == [
        "ranks 0,2, the innermost call first:",
        "  | train.py:7 step",
        "  | train.py:20 <module>",
        "rank 1, the innermost call first:",
        "  | train.py:9 step",
        "  | train.py:20 <module>",
    ]
    error = first_error(run.state)
    assert error is not None and (error["rank"], error["node"]) == (1, "n1")


def test_a_node_that_does_not_answer_holds_nothing_up() -> None:
    run = suspected()
    run.take("n1", answer(r0=7, r1=7))
    assert run.tick(hang.ANSWER_S - 1) == []
    assert kinds(run.tick(2)) == [core.StopAll]
    assert run.state.stop_reason is core.StopReason.HUNG


def test_output_that_is_only_late_to_come_is_no_hang() -> None:
    run = suspected()
    run.take("n1", answer(60.0, r0=7, r1=7))
    assert run.take("n2", answer(0.5, r2=7)) == []
    assert run.phase() is core.RunPhase.RUNNING
    assert run.state.suspicion is None


@pytest.mark.parametrize("data", [b"", b"[1]", b'{"x": 1}', b'{"0": null}'])
def test_an_answer_that_makes_no_sense_still_counts(data: bytes) -> None:
    run = suspected()
    run.take("n1", wire.StacksCollected(60.0, data))
    run.take("n2", wire.StacksCollected(60.0, data))
    assert run.state.stop_reason is core.StopReason.HUNG
    assert run.state.suspicion is not None
    assert hang.headline(run.state.suspicion)


def test_a_failure_in_the_meantime_goes_first() -> None:
    run = suspected()
    run.exit(0, 3)
    assert run.state.stop_reason is core.StopReason.WORKER_FAILED


def running() -> core.RunState:
    run = Run()
    run.start()
    return run.state


def heard(silence: Silence, state: core.RunState, until_s: int, **how: bool) -> list[int]:
    """Asks each second; returns the seconds at which the silence was too long."""
    linked = how.get("is_linked", True)
    seconds = range(1, until_s + 1)
    return [now for now in seconds if silence.notice(state, float(now), is_linked=linked)]


def test_a_silence_is_told_of_once_each_time_it_has_lasted() -> None:
    silence = Silence(5.0, 3.0)
    silence.hear(1.0)
    assert heard(silence, running(), 12) == [6, 11]


def test_no_silence_without_a_limit_or_a_connection_or_before_the_workers_run() -> None:
    assert heard(Silence(None, 3.0), running(), 100) == []
    assert heard(Silence(5.0, 3.0), running(), 100, is_linked=False) == []
    assert heard(Silence(5.0, 3.0), Run().state, 100) == []


def test_a_loop_that_stood_still_has_listened_to_nobody() -> None:
    silence = Silence(5.0, 3.0)
    silence.hear(0.0)
    assert silence.notice(running(), 1.0, is_linked=True) is None
    assert silence.notice(running(), 1000.0, is_linked=True) is None
    assert silence.notice(running(), 1002.0, is_linked=True) is None
