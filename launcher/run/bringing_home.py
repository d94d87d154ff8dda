"""Bringing home what a run left that was stopped without a launcher: nobody looks on."""

from __future__ import annotations

import time

from launcher.collect.checkpoints import Stored
from launcher.collect.gathered import Gathered
from launcher.collect.reports import Metrics
from launcher.core import state as core
from launcher.core import transitions
from launcher.core.pace import Pace
from launcher.core.usage import Usage
from launcher.errors import UsageError
from launcher.run.attaching import read_plan, stands, undertaking_of
from launcher.run.bringup import Transports
from launcher.run.following import Options
from launcher.run.session import Session
from launcher.store.run_record import RunRecord
from launcher.store.runs import KnownRun
from launcher.wire import events


def bring_home(known: KnownRun, transports: Transports, grace_s: float) -> bool:
    """Follows a stopped run to its end; returns whether everything is here then.

    Args:
        known: the run, whose workers were ended.
        transports: the ways to its nodes.
        grace_s: what workers get that live nevertheless.

    Raises:
        StoreError: its plan cannot be read, or this machine's disk takes nothing.
    """
    plan = read_plan(known)
    try:
        record = RunRecord.reopen(known)
    except UsageError:
        return False  # somebody attached to it in this moment, and brings it home
    try:
        how = Options(grace_s=grace_s)
        stopped = events.StopOrdered(time.time())
        state, _ = transitions.step(stands(record, plan), "", stopped, time.monotonic())
        work = undertaking_of(plan)
        ending = Session(work, record, transports, _Nobody(), how, taken_up=state).run()
    finally:
        record.close()
    return not ending.state.missing


class _Nobody:
    """A watcher who does not look."""

    is_gone = False

    def on_state(self, state: core.RunState) -> None:
        pass

    def on_output(self, rank: int, stream: str, data: bytes) -> None:
        pass

    def on_metrics(self, metrics: Metrics) -> None:
        pass

    def on_usage(self, node: str, usage: Usage) -> None:
        pass

    def on_pace(self, pace: Pace) -> None:
        pass

    def on_runtime_progress(self, node: str, progress: events.RuntimeProgress) -> None:
        pass

    def on_checkpoint(self, stored: Stored) -> None:
        pass

    def on_collected(self, gathered: Gathered) -> None:
        pass

    def on_problem(self, problem: str) -> None:
        pass

    def on_tick(self) -> None:
        pass
