"""Who is waited for while workers start, in words. Pure."""

from __future__ import annotations

from launcher.core.state import RunPhase, RunState, WorkerPhase

# Before this, every start looks like a stall.
PATIENCE_S = 5.0
# Of the ranks that are waited for, so many are named.
MAX_NAMED = 4


def waited_for(state: RunState, now: float) -> str:
    """Returns whom the others wait for; "" where nobody waits, or not long enough to say so.

    Args:
        state: how the run stands.
        now: the launcher's monotonic clock, seconds.
    """
    if state.phase is not RunPhase.RUNNING:
        return ""
    importing = _in(state, WorkerPhase.IMPORTING)
    if not importing and not _in(state, WorkerPhase.JOINED):
        # Perhaps a program that never imports oneflow, where nobody waits for anybody.
        return ""
    # Who is importing waits itself for those that have not begun to.
    behind = _in(state, WorkerPhase.WAITING, WorkerPhase.STARTED) or importing
    if max((now - state.workers[rank].since for rank in behind), default=0.0) < PATIENCE_S:
        return ""
    named = ", ".join(_named(state, rank, now) for rank in behind[:MAX_NAMED])
    more = len(behind) - MAX_NAMED
    return f"waiting for {named}" + (f" and {more} more" if more > 0 else "")


def _in(state: RunState, *phases: WorkerPhase) -> list[int]:
    return sorted(rank for rank, worker in state.workers.items() if worker.phase in phases)


def _named(state: RunState, rank: int, now: float) -> str:
    worker = state.workers[rank]
    doing = {
        WorkerPhase.WAITING: "not started",
        WorkerPhase.STARTED: "has not imported oneflow",
    }.get(worker.phase, worker.phase.value)
    return f"{worker.node}:{rank} ({doing}, {max(0.0, now - worker.since):.0f} s)"
