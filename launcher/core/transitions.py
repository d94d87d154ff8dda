"""How a run goes on: events in, a new state and actions out. Pure.

Times are given in, never read: `now` is the launcher's monotonic clock in seconds; the `clock`
of an event is its node's wall clock, and `ClockMeasured` says by how much that one is ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from launcher.core.blame import read_facts
from launcher.core.changes import lose, with_node, with_worker
from launcher.core.hang import Suspicion
from launcher.core.phases import STOP_SLACK_S, Result, advance, stop
from launcher.core.state import (
    Action,
    AgentGone,
    AnyEvent,
    AskStacks,
    CheckpointFailed,
    CheckpointsPending,
    ClockMeasured,
    Exit,
    FellSilent,
    Interrupted,
    LinkDropped,
    LinkLost,
    LinkRestored,
    NodeConnected,
    NodeFailed,
    NodePhase,
    OpenGates,
    OutputComplete,
    RunPhase,
    RunState,
    StartAll,
    StopAll,
    StopReason,
    Tick,
    TimedOut,
    WorkerPhase,
    WorkerRaised,
    WorkerReported,
)
from launcher.wire import events as wire

# After one node failed, the others get this long to say what is wrong with them too.
GATHER_FAILURES_S = 3.0


def step(state: RunState, node: str, event: AnyEvent, now: float) -> Result:
    """Takes one event in.

    Args:
        state: how the run stands.
        node: where the event comes from, "" where from nowhere in particular.
        event: what happened.
        now: the launcher's monotonic clock, seconds.

    Returns:
        How the run stands then, and what is to be done.
    """
    handler = _HANDLERS.get(type(event))
    if handler is None or state.phase is RunPhase.ENDED:
        return state, []
    # What time alone brings about came before the event: else one that comes twice would find
    # the run in two phases.
    state, actions = advance(state, now)
    if state.phase is not RunPhase.ENDED:
        state, more = handler(state, node, event, now)
        state, last = advance(state, now)
        actions = [*actions, *more, *last]
    return state, actions


# What each event changes


def _on_connected(state: RunState, node: str, event: NodeConnected, now: float) -> Result:
    if node in state.nodes and state.nodes[node].phase is NodePhase.CONNECTING:
        return with_node(state, node, phase=NodePhase.PREPARING), []
    return state, []


def _on_prepared(state: RunState, node: str, event: wire.NodePrepared, now: float) -> Result:
    if state.phase is not RunPhase.PREPARING or not _is_preparing(state, node):
        return state, []
    state = with_node(state, node, phase=NodePhase.PREPARED)
    return (replace(state, ctrl_port=event.ctrl_port) if event.ctrl_port else state), []


def _is_preparing(state: RunState, node: str) -> bool:
    known = state.nodes.get(node)
    return known is not None and known.phase in (NodePhase.CONNECTING, NodePhase.PREPARING)


def _on_unusable(state: RunState, node: str, event: wire.NodeUnusable, now: float) -> Result:
    return _on_failed(state, node, NodeFailed(event.message, event.hint), now)


def _on_failed(state: RunState, node: str, event: NodeFailed, now: float) -> Result:
    if node not in state.nodes or not state.nodes[node].is_reachable:
        return state, []
    # A node that only could not start its workers still answers, and must be heard out.
    phase = NodePhase.FAILED if _is_preparing(state, node) else state.nodes[node].phase
    if state.phase is RunPhase.RUNNING:
        phase = NodePhase.FAILED
    state = with_node(state, node, phase=phase, problem=event.message, hint=event.hint)
    return _gather(state, now), []


def _on_dropped(state: RunState, node: str, event: LinkDropped, now: float) -> Result:
    if node in state.nodes and state.nodes[node].is_reachable:
        return with_node(state, node, cut=event.message), []
    return state, []


def _on_restored(state: RunState, node: str, event: LinkRestored, now: float) -> Result:
    return with_node(state, node, cut=""), []


def _on_agent_gone(state: RunState, node: str, event: AgentGone, now: float) -> Result:
    known = state.nodes.get(node)
    if known is None or not known.is_reachable:
        return state, []
    problem = f"its agent is gone: {event.message}"
    if state.phase is RunPhase.PREPARING:
        # Prepared or not: nobody is there who could start anything.
        return _gather(with_node(state, node, phase=NodePhase.FAILED, problem=problem), now), []
    phase = known.phase if known.phase is NodePhase.STOPPED else NodePhase.ORPHANED
    if phase is NodePhase.STOPPED:
        problem = known.problem
    return with_node(state, node, phase=phase, problem=problem, cut=""), []


def _on_link_lost(state: RunState, node: str, event: LinkLost, now: float) -> Result:
    if node not in state.nodes:
        return state, []
    return _gather(lose(state, node, event.message), now), []


def _gather(state: RunState, now: float) -> RunState:
    """Gives the other nodes some time, from the first failure on, to say what they lack too."""
    if state.phase is RunPhase.PREPARING and state.deadline is None:
        return replace(state, deadline=now + GATHER_FAILURES_S)
    return state


def _on_started(state: RunState, node: str, event: wire.WorkerStarted, now: float) -> Result:
    worker = state.workers.get(event.rank)
    if worker is None or worker.phase is not WorkerPhase.WAITING or event.attempt != state.attempt:
        return state, []
    state = with_worker(state, event.rank, phase=WorkerPhase.STARTED, pid=event.pid, since=now)
    if node in state.nodes and state.nodes[node].phase is NodePhase.PREPARED:
        state = with_node(state, node, phase=NodePhase.RUNNING)
    return state, []


def catch_up(state: RunState, node: str) -> list[Action]:
    """Returns what a node may have missed while there was no connection to it.

    Each of these may be said twice.
    """
    known = state.nodes[node]
    if state.phase is RunPhase.RUNNING:
        start: list[Action] = [StartAll(state.attempt, state.ctrl_port)]
        return [
            *(start if known.phase is NodePhase.PREPARED else []),
            *([OpenGates(state.attempt)] if state.is_open else []),
        ]
    if state.phase in (RunPhase.STOPPING, RunPhase.RESTARTING):
        return [StopAll(state.grace_s)] if known.phase is not NodePhase.STOPPED else []
    return []


def _on_reported(state: RunState, node: str, event: WorkerReported, now: float) -> Result:
    worker = state.workers.get(event.rank)
    if worker is None or worker.phase is WorkerPhase.EXITED:
        return state, []
    return with_worker(state, event.rank, phase=event.phase, since=now), []


def _on_raised(state: RunState, node: str, event: WorkerRaised, now: float) -> Result:
    if event.rank not in state.workers:
        return state, []
    return with_worker(state, event.rank, raised=event.raised), []


def _on_diagnosed(state: RunState, node: str, event: wire.WorkerDiagnosed, now: float) -> Result:
    worker = state.workers.get(event.rank)
    if worker is None or event.attempt != state.attempt:
        return state, []
    return with_worker(state, event.rank, facts=read_facts(event)), []


def _on_listening(
    state: RunState, node: str, event: wire.RendezvousListening, now: float
) -> Result:
    if state.phase is not RunPhase.RUNNING or event.attempt != state.attempt:
        return state, []
    return replace(state, is_open=True), [OpenGates(state.attempt)]


def _on_exited(state: RunState, node: str, event: wire.WorkerExited, now: float) -> Result:
    worker = state.workers.get(event.rank)
    if worker is None or worker.exit is not None or event.attempt != state.attempt:
        return state, []
    ahead_s = state.nodes[worker.node].ahead_s
    end = Exit(
        rank=event.rank,
        exit_code=event.exit_code,
        signal=event.signal,
        at=event.clock - ahead_s,
        after_stop=event.stopped or state.phase is not RunPhase.RUNNING,
    )
    return with_worker(state, event.rank, phase=WorkerPhase.EXITED, exit=end), []


def _on_stopped(state: RunState, node: str, event: wire.WorkersStopped, now: float) -> Result:
    known = state.nodes.get(node)
    if known is None or not known.is_reachable or event.left:
        return state, []
    if state.phase is RunPhase.PREPARING:
        return state, []
    after = with_node(state, node, phase=NodePhase.STOPPED)
    if state.phase is RunPhase.RUNNING and _is_end_unknown(state, node):
        problem = "its agent was gone, and nobody knows how its workers ended"
        after = with_node(after, node, problem=problem)
    return after, []


def _is_end_unknown(state: RunState, node: str) -> bool:
    own = [worker for worker in state.workers.values() if worker.node == node]
    return any(worker.exit is None for worker in own)


def _on_lease_ended(state: RunState, node: str, event: wire.LeaseEnded, now: float) -> Result:
    if state.phase is RunPhase.RUNNING and not state.failures:
        return stop(state, StopReason.LEASE, now)
    return state, []


def _on_clock(state: RunState, node: str, event: ClockMeasured, now: float) -> Result:
    return with_node(state, node, ahead_s=event.ahead_s), []


def _on_interrupted(state: RunState, node: str, event: Interrupted, now: float) -> Result:
    state = replace(state, interrupts=state.interrupts + 1)
    if state.phase in (RunPhase.PREPARING, RunPhase.RUNNING):
        return stop(state, StopReason.INTERRUPTED, now)
    if state.phase is RunPhase.RESTARTING:
        return replace(state, stop_reason=StopReason.INTERRUPTED), []
    if state.phase is RunPhase.STOPPING and state.interrupts > 1:
        return replace(state, deadline=now + STOP_SLACK_S), [StopAll(0.0)]
    return state, []


def _on_silent(state: RunState, node: str, event: FellSilent, now: float) -> Result:
    if state.phase is not RunPhase.RUNNING or state.suspicion is not None:
        return state, []
    return replace(state, suspicion=Suspicion(event.quiet_s, now)), [AskStacks()]


def _on_stacks(state: RunState, node: str, event: wire.StacksCollected, now: float) -> Result:
    if state.suspicion is None or node not in state.nodes:
        return state, []
    return replace(state, suspicion=state.suspicion.with_answer(node, event)), []


def _on_timed_out(state: RunState, node: str, event: TimedOut, now: float) -> Result:
    if state.phase in (RunPhase.PREPARING, RunPhase.RUNNING):
        return stop(state, StopReason.TIMEOUT, now)
    if state.phase is RunPhase.RESTARTING:
        return replace(state, stop_reason=StopReason.TIMEOUT), []
    return state, []


def _on_stop_ordered(state: RunState, node: str, event: wire.StopOrdered, now: float) -> Result:
    if state.phase in (RunPhase.PREPARING, RunPhase.RUNNING):
        return stop(state, StopReason.STOPPED, now)
    return state, []


def _on_output_complete(state: RunState, node: str, event: OutputComplete, now: float) -> Result:
    worker = state.workers.get(event.rank)
    if worker is None:
        return state, []
    torn = worker.torn_streams | ({event.stream} if event.problem else set())
    state = with_worker(
        state,
        event.rank,
        open_streams=worker.open_streams - {event.stream},
        torn_streams=torn if event.problem else torn - {event.stream},
    )
    missing = (*state.missing, event.problem) if event.problem else state.missing
    return replace(state, missing=missing), []


def _on_pending(state: RunState, node: str, event: CheckpointsPending, now: float) -> Result:
    return replace(state, checkpoints_pending=event.pending), []


def _on_checkpoint_failed(
    state: RunState, node: str, event: CheckpointFailed, now: float
) -> Result:
    return replace(state, missing=(*state.missing, event.problem)), []


def _on_tick(state: RunState, node: str, event: Tick, now: float) -> Result:
    return state, []


_HANDLERS: Mapping[type, Callable[[RunState, str, Any, float], Result]] = MappingProxyType(
    {
        NodeConnected: _on_connected,
        NodeFailed: _on_failed,
        LinkDropped: _on_dropped,
        LinkRestored: _on_restored,
        AgentGone: _on_agent_gone,
        LinkLost: _on_link_lost,
        WorkerReported: _on_reported,
        WorkerRaised: _on_raised,
        wire.WorkerDiagnosed: _on_diagnosed,
        ClockMeasured: _on_clock,
        Interrupted: _on_interrupted,
        TimedOut: _on_timed_out,
        FellSilent: _on_silent,
        wire.StacksCollected: _on_stacks,
        OutputComplete: _on_output_complete,
        CheckpointsPending: _on_pending,
        CheckpointFailed: _on_checkpoint_failed,
        Tick: _on_tick,
        wire.NodePrepared: _on_prepared,
        wire.NodeUnusable: _on_unusable,
        wire.WorkerStarted: _on_started,
        wire.RendezvousListening: _on_listening,
        wire.WorkerExited: _on_exited,
        wire.WorkersStopped: _on_stopped,
        wire.StopOrdered: _on_stop_ordered,
        wire.LeaseEnded: _on_lease_ended,
    }
)
