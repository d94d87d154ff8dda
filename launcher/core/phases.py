"""When a run moves from one phase to the next, and what is to be done then. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from launcher.core import restarting
from launcher.core.changes import is_over, lose, with_node
from launcher.core.state import (
    Action,
    EndAll,
    NodePhase,
    NodeState,
    RunPhase,
    RunState,
    StartAll,
    StopAll,
    StopReason,
    WorkerPhase,
    WorkerState,
)

# What stopping may take beyond the grace before the node counts as lost.
STOP_SLACK_S = 10.0

_UNUSABLE = (NodePhase.LOST, NodePhase.FAILED, NodePhase.ORPHANED)

Result = tuple[RunState, list[Action]]


def advance(state: RunState, now: float) -> Result:
    """Moves on where what a phase waits for has come about, or has taken too long."""
    actions: list[Action] = []
    while True:
        move_on = _ADVANCES.get(state.phase)
        after, more = move_on(state, now) if move_on else (state, [])
        actions += more
        if after.phase is state.phase:
            return after, actions
        state = after


def _advance_preparing(state: RunState, now: float) -> Result:
    phases = [node.phase for node in state.nodes.values()]
    if state.stop_reason is not None:
        return stop(state, state.stop_reason, now)
    if all(phase is NodePhase.PREPARED for phase in phases):
        after = replace(state, phase=RunPhase.RUNNING, deadline=None, running_since=now)
        return after, [StartAll(state.attempt, state.ctrl_port)]
    settled = (NodePhase.PREPARED, NodePhase.FAILED, NodePhase.LOST)
    failed = NodePhase.FAILED in phases or NodePhase.LOST in phases
    if failed and (all(phase in settled for phase in phases) or is_over(state, now)):
        again = restarting.without_failed(state)
        return again or stop(state, StopReason.NODE_FAILED, now)
    return state, []


def _advance_running(state: RunState, now: float) -> Result:
    if any(_is_unusable(node) for node in state.nodes.values()):
        return stop(state, StopReason.NODE_FAILED, now)
    if state.failures:
        return stop(state, StopReason.WORKER_FAILED, now)
    suspicion = state.suspicion
    if suspicion is not None and suspicion.is_settled(_answering(state), now):
        if suspicion.is_confirmed:
            return stop(state, StopReason.HUNG, now)
        state = replace(state, suspicion=None)
    if _has_stalled(state, now):
        return stop(state, StopReason.START_TIMEOUT, now)
    if all(node.phase is NodePhase.STOPPED for node in state.nodes.values()):
        return replace(state, phase=RunPhase.COLLECTING, deadline=None), []
    return state, []


def _answering(state: RunState) -> list[str]:
    return [name for name, node in state.nodes.items() if node.is_reachable]


def _is_unusable(node: NodeState) -> bool:
    return node.phase in _UNUSABLE or (node.phase is NodePhase.STOPPED and bool(node.problem))


def _has_stalled(state: RunState, now: float) -> bool:
    """Whether some rank waits for the others in OneFlow's rendezvous for longer than it may."""
    if state.start_limit_s is None or now < state.running_since + state.start_limit_s:
        return False
    return any(worker.phase is WorkerPhase.IMPORTING for worker in state.workers.values())


def stop(state: RunState, reason: StopReason, now: float) -> Result:
    """Has every node stop its workers, for this reason."""
    grace_s = 0.0 if state.interrupts > 1 else state.grace_s
    for name, node in state.nodes.items():
        if node.phase is NodePhase.CONNECTING:
            # Nobody is there to be stopped; the attempt to connect is given up.
            state = with_node(state, name, phase=NodePhase.ENDED)
    after = replace(
        state,
        phase=RunPhase.STOPPING,
        stop_reason=reason,
        deadline=now + grace_s + STOP_SLACK_S,
    )
    return after, [StopAll(grace_s)]


def _advance_stopping(state: RunState, now: float) -> Result:
    waiting = [
        name
        for name, node in state.nodes.items()
        if node.is_reachable and node.phase is not NodePhase.STOPPED
    ]
    if waiting and not is_over(state, now):
        return state, []
    for name in waiting:
        state = lose(state, name, "did not say in time that its workers had ended")
    if restarting.may_restart(state):
        return restarting.give_up_attempt(state, now), []
    return replace(state, phase=RunPhase.COLLECTING, deadline=None), []


def _advance_restarting(state: RunState, now: float) -> Result:
    if state.interrupts or state.stop_reason not in restarting.REASONS:
        return replace(state, phase=RunPhase.COLLECTING, deadline=None), []
    if not is_over(state, now) or restarting.awaits_checkpoints(state, now):
        return state, []
    return restarting.begin_attempt(state)


def _advance_collecting(state: RunState, now: float) -> Result:
    open_streams = any(
        worker.open_streams and worker.phase is not WorkerPhase.WAITING and _can_tell(state, worker)
        for worker in state.workers.values()
    )
    # A checkpoint comes from a node; where none is left, none comes.
    checkpoints = state.checkpoints_pending and any(
        node.is_reachable for node in state.nodes.values()
    )
    if (open_streams or checkpoints) and state.interrupts < 2:
        return state, []
    state = _note_missing(state)
    return replace(state, phase=RunPhase.ENDED), [EndAll(keep=bool(state.missing))]


def _note_missing(state: RunState) -> RunState:
    lines = [
        f"{worker.node}: rank {rank}: the end of its {stream}"
        for rank, worker in state.workers.items()
        if worker.phase is not WorkerPhase.WAITING
        for stream in sorted(worker.open_streams - worker.torn_streams)
    ]
    if state.checkpoints_pending:
        lines.append(f"{state.checkpoints_pending} published checkpoint(s)")
    return replace(state, missing=(*state.missing, *lines))


def _can_tell(state: RunState, worker: WorkerState) -> bool:
    return state.nodes[worker.node].is_reachable


_ADVANCES: Mapping[RunPhase, Callable[[RunState, float], Result]] = MappingProxyType(
    {
        RunPhase.PREPARING: _advance_preparing,
        RunPhase.RUNNING: _advance_running,
        RunPhase.STOPPING: _advance_stopping,
        RunPhase.RESTARTING: _advance_restarting,
        RunPhase.COLLECTING: _advance_collecting,
    }
)
