"""Another attempt after a failure: whether there is one, with which nodes, and when. Pure."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from launcher.core.hang import headline
from launcher.core.state import (
    Action,
    NodePhase,
    NodeState,
    PrepareAgain,
    Restart,
    RunPhase,
    RunState,
    StopReason,
    WorkerState,
)

# Only these end an attempt and not the run.
REASONS = (StopReason.WORKER_FAILED, StopReason.NODE_FAILED, StopReason.HUNG)
FIRST_BACKOFF_S, LAST_BACKOFF_S = 1.0, 30.0
# What a checkpoint that is still on its way may take beyond the back-off.
CHECKPOINTS_S = 30.0


def may_restart(state: RunState) -> bool:
    """Whether the attempt that failed is followed by another one."""
    left = len(state.restarts) < state.policy.max_restarts
    return left and not state.interrupts and state.stop_reason in REASONS


def backoff_s(restarts: int) -> float:
    """Returns how long to wait before an attempt.

    >>> [backoff_s(count) for count in range(7)]
    [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    """
    return float(min(FIRST_BACKOFF_S * 2**restarts, LAST_BACKOFF_S))


def cause_in_words(state: RunState) -> str:
    """Returns what failed first, in one line."""
    if state.stop_reason is StopReason.HUNG and state.suspicion is not None:
        return headline(state.suspicion)
    cause = state.root_cause
    if cause is not None:
        return f"rank {cause.rank} on {state.workers[cause.rank].node} {cause.in_words}"
    problems = [f"{name}: {node.problem}" for name, node in state.nodes.items() if node.problem]
    return problems[0] if problems else "a worker failed"


def give_up_attempt(state: RunState, now: float) -> RunState:
    """Returns the state in which the next attempt is waited for."""
    restart = Restart(state.attempt, cause_in_words(state), now)
    deadline = now + backoff_s(len(state.restarts))
    return replace(
        state,
        phase=RunPhase.RESTARTING,
        restarts=(*state.restarts, restart),
        deadline=deadline,
    )


def awaits_checkpoints(state: RunState, now: float) -> bool:
    """Whether a published checkpoint is still on its way, from which the attempt is to start."""
    if not state.checkpoints_pending or state.deadline is None:
        return False
    reachable = any(node.is_reachable for node in state.nodes.values())
    return reachable and now < state.deadline + CHECKPOINTS_S


def begin_attempt(state: RunState) -> tuple[RunState, list[Action]]:
    """Returns the state in which the nodes are prepared for the next attempt."""
    after = replace(
        _prepared_anew(state, tuple(state.nodes)),
        attempt=state.attempt + 1,
        stop_reason=None,
    )
    return after, [PrepareAgain(after.attempt)]


def without_failed(state: RunState) -> tuple[RunState, list[Action]] | None:
    """Returns how it goes on without the nodes that cannot be used, None where it does not.

    A spare takes the place of such a node; where there is none, the run goes on with fewer nodes
    if it may.
    """
    failed = [name for name, node in state.nodes.items() if node.phase is not NodePhase.PREPARED]
    taken = dict(zip(failed, state.spares, strict=False))
    nodes = tuple(
        taken.get(name, name) for name in state.nodes if name in taken or name not in failed
    )
    needed = len(state.nodes) if state.policy.min_nodes is None else state.policy.min_nodes
    if len(nodes) < max(needed, 1) or nodes == tuple(state.nodes):
        return None
    spares = state.spares[len(taken) :]
    after = replace(_prepared_anew(state, nodes), spares=spares)
    return after, [PrepareAgain(after.attempt)]


def _prepared_anew(state: RunState, nodes: tuple[str, ...]) -> RunState:
    """Returns the state in which these nodes, and no worker yet, are being prepared."""
    counts = {name: _slots(state, name) for name in nodes}
    places = [name for name, count in counts.items() for _ in range(count)]
    return replace(
        state,
        phase=RunPhase.PREPARING,
        nodes=MappingProxyType({name: _anew(state.nodes.get(name)) for name in nodes}),
        workers=MappingProxyType({rank: WorkerState(name) for rank, name in enumerate(places)}),
        deadline=None,
        ctrl_port=0,
        is_open=False,
        suspicion=None,
    )


def _slots(state: RunState, node: str) -> int:
    if node in state.policy.slots:
        return state.policy.slots[node]
    return sum(worker.node == node for worker in state.workers.values())


def _anew(node: NodeState | None) -> NodeState:
    """Returns a node before its preparation; one that answers has its connection still."""
    if node is None or not node.is_reachable or node.phase is NodePhase.ORPHANED:
        return NodeState()
    return replace(node, phase=NodePhase.PREPARING, problem="", hint="")
