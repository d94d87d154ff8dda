"""Stopping a run from another launcher than its own: beside that one, or where it is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.core.model import NodeSpec
from launcher.errors import FlowlaunchError, NodeLost
from launcher.run.bringup import Transports
from launcher.run.talk import Talk, on_all
from launcher.wire import events

# An agent answers within a tick of its loop; one that is stopped or stuck never does.
ANSWER_S = 5.0
# From the end of the grace until a node has said what is left there.
END_LIMIT_S = 5.0
_NO_LEASE_S = 60.0


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


def stop_run(
    nodes: Sequence[NodeSpec], run_id: str, transports: Transports, grace_s: float, *, leave: bool
) -> list[NodeStopped]:
    """Ends the workers of a run on all of its nodes at once.

    The agent of a node does it; where none lives, or none answers, the visitor does it itself,
    and looks for the run's id in the environment of every process.

    Args:
        nodes: the run's nodes.
        run_id: the run.
        transports: the ways there.
        grace_s: from TERM to KILL.
        leave: whether the agents leave then; a launcher that follows the run still needs them.
    """

    def work(node: NodeSpec) -> NodeStopped:
        try:
            return _stop_on(node, run_id, transports, "visit", events.StopRun(grace_s, leave))
        except NodeLost:
            return _stop_on(node, run_id, transports, "look", events.StopRun(grace_s, leave))

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
