"""Taking over a run that goes on without this launcher: detached, or left by one that died."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from launcher.core import replay
from launcher.core import state as core
from launcher.core.model import LaunchPlan
from launcher.core.plan import plan_from_json
from launcher.errors import StoreError
from launcher.run.attempts import Undertaking
from launcher.store.job_folder import JobFolder
from launcher.store.run_record import RunRecord
from launcher.store.runs import KnownRun


def read_plan(known: KnownRun) -> LaunchPlan:
    """Returns the plan of a run's latest attempt.

    Raises:
        StoreError: it is missing or damaged.
    """
    try:
        return plan_from_json(known.plan())
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"it is no plan: {error}", where=str(known.paths.plan)) from None


def stands(record: RunRecord, plan: LaunchPlan) -> core.RunState:
    """Returns how a run stands by what was written down, as another launcher takes it up."""
    layout = {rank.rank: rank.node for rank in plan.ranks}
    written = replay.replay(record.event_lines(), core.new_run(layout))
    return replay.taken_up(written, time.monotonic())


def undertaking_of(plan: LaunchPlan) -> Undertaking:
    """Returns what a run is to do that was begun by another launcher: this, and nothing anew."""

    def with_nodes(names: Sequence[str]) -> LaunchPlan:
        raise AssertionError("a run that was taken up has no further attempts")

    return Undertaking(plan, JobFolder(Path(), (), ""), {}, (), with_nodes)
