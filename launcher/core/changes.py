"""Small changes of a run's state. Pure."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from launcher.core.state import (
    NodePhase,
    RunState,
)


def with_node(state: RunState, name: str, **changes: object) -> RunState:
    """Returns the state with one node changed; the same where there is no such node."""
    if name not in state.nodes:
        return state
    changed = replace(state.nodes[name], **changes)  # type: ignore[arg-type]
    return replace(state, nodes=MappingProxyType({**state.nodes, name: changed}))


def with_worker(state: RunState, rank: int, **changes: object) -> RunState:
    """Returns the state with one worker changed."""
    changed = replace(state.workers[rank], **changes)  # type: ignore[arg-type]
    return replace(state, workers=MappingProxyType({**state.workers, rank: changed}))


def lose(state: RunState, name: str, message: str) -> RunState:
    """Returns the state without a node that could be reached so far."""
    if name not in state.nodes or not state.nodes[name].is_reachable:
        return state
    return with_node(state, name, phase=NodePhase.LOST, problem=message)


def is_over(state: RunState, now: float) -> bool:
    """Whether what the phase waits for has taken too long."""
    return state.deadline is not None and now >= state.deadline
