"""Stopping a run from another launcher than its own: beside that one, or where it is gone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.core.model import NodeSpec
from launcher.errors import FlowlaunchError, NodeLost
from launcher.run.bringing_home import bring_home
from launcher.run.bringup import Transports
from launcher.run.talk import Talk, on_all
from launcher.store.runs import KnownRun, is_followed
from launcher.wire import events

# An agent answers within a tick of its loop; one that is stopped or stuck never does.
ANSWER_S = 5.0
# From the end of the grace until a node has said what is left there.
END_LIMIT_S = 5.0
# What a launcher may take to bring home what its stopped workers have left.
LET_GO_LIMIT_S = 20.0
_NO_LEASE_S = 60.0
_TICK_S = 0.05


@dataclass(frozen=True)
class NodeStopped:
    """What came of one node.

    Attributes:
        left: the processes of the run that still live there, in words.
        error: why the node was not reached, None where it was.
    """

    node: str
    left: tuple[str, ...] = ()
    error: FlowlaunchError | None = None


@dataclass(frozen=True)
class Stopped:
    """What came of stopping a run.

    Attributes:
        nodes: what came of each of its nodes, in the plan's order.
        is_home: everything is here that the run has written, or is being brought by its launcher.
    """

    nodes: tuple[NodeStopped, ...]
    is_home: bool


def stop_run(known: KnownRun, transports: Transports, grace_s: float) -> Stopped:
    """Ends a run on all of its nodes.

    A launcher that follows it brings home what is there. Where there is none, that is done here,
    and the agents are ended then.

    Args:
        known: the run.
        transports: the ways to its nodes.
        grace_s: from TERM to KILL.

    Raises:
        StoreError: the plan of the run cannot be read, or this disk takes nothing.
    """
    nodes = known.nodes()
    if known.is_followed:
        stopped = _end_workers(nodes, known.run_id, transports, grace_s, "visit")
        return Stopped(tuple(stopped), _wait_let_go(known))
    if not known.has_ended:
        stopped = _end_workers(nodes, known.run_id, transports, grace_s, "visit")
        missed = {node.node: node for node in stopped if node.error is not None}
        is_home = not missed and bring_home(known, transports, grace_s)
    else:
        missed, is_home = {}, not known.record.get("missing")
    reached = [node for node in nodes if node.name not in missed]
    swept = _end_workers(reached, known.run_id, transports, grace_s, "look")
    done = {**missed, **{node.node: node for node in swept}}
    return Stopped(tuple(done[node.name] for node in nodes), is_home)


def _wait_let_go(known: KnownRun) -> bool:
    """Waits for the launcher that follows a run to end; returns False where it takes its time."""
    deadline = time.monotonic() + LET_GO_LIMIT_S
    while is_followed(known.top):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_TICK_S)
    return True


def _end_workers(
    nodes: Sequence[NodeSpec], run_id: str, transports: Transports, grace_s: float, mode: str
) -> list[NodeStopped]:
    """Ends the workers of a run on nodes, all at once.

    The agent of a node does it; where none lives, none answers, or the mode is "look", the visitor
    does it, and ends the agent too. Either looks for the run's id in every process's environment.
    """

    def work(node: NodeSpec) -> NodeStopped:
        try:
            return _stop_on(node, run_id, transports, mode, events.StopRun(grace_s))
        except NodeLost:
            return _stop_on(node, run_id, transports, "look", events.StopRun(grace_s))

    return [
        NodeStopped(node.name, error=outcome) if isinstance(outcome, FlowlaunchError) else outcome
        for node, outcome in zip(nodes, on_all(nodes, work), strict=True)
    ]


def _stop_on(
    node: NodeSpec, run_id: str, transports: Transports, mode: str, order: events.StopRun
) -> NodeStopped:
    with Talk(node, transports, run_id, mode=mode, lease_s=_NO_LEASE_S) as talk:
        talk.wait_for(events.AgentReady, ANSWER_S)
        talk.send(order)
        answer = talk.wait_for(events.RunStopped, order.grace_s + END_LIMIT_S)
    return NodeStopped(node.name, tuple(map(in_words, events.unpack_json(answer.data))))


def in_words(process: Mapping[str, Any]) -> str:
    """Returns a process, as an agent told of it, for people.

    >>> in_words({"pid": 12, "kind": "worker", "rank": 3, "command": "python job.py"})
    "12 (rank 3's: python job.py)"
    """
    if process["kind"] == "agent":
        return f"{process['pid']} (agent)"
    return f"{process['pid']} (rank {process['rank']}'s: {process['command']})"
