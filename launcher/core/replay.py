"""How a run stands by what events.jsonl tells of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, get_args

from launcher.core import phases, transitions
from launcher.core import state as core
from launcher.core.blame import Raised
from launcher.wire import codec
from launcher.wire import events as wire

ATTEMPT_BEGAN = "attempt_began"

_KINDS: Mapping[str, Any] = MappingProxyType(
    {
        **wire.KINDS,
        **{wire.snake_case(cls.__name__): cls for cls in get_args(core.LocalEvent)},
    }
)


def replay(lines: Iterable[bytes], run: core.RunState) -> core.RunState:
    """Returns the state after everything that the lines tell of.

    Args:
        lines: of events.jsonl; a torn one is passed over.
        run: the state before the first of them.
    """
    for line in lines:
        try:
            fields = json.loads(line)
            kind, at, node = fields.pop("event"), fields.pop("time"), fields.pop("node", "")
            if kind == ATTEMPT_BEGAN:
                run = _begun(run, fields)
            elif kind in _KINDS:
                run, _ = transitions.step(run, node, _event(kind, fields), at)
        except (ValueError, TypeError, KeyError, AttributeError, codec.WireError):
            continue
    return run


def _event(kind: str, fields: dict[str, Any]) -> core.AnyEvent:
    cls = _KINDS[kind]
    if cls is core.WorkerReported:
        fields["phase"] = core.WorkerPhase(fields["phase"])
    if cls is core.WorkerRaised:
        told = fields["raised"]
        fields["raised"] = Raised(told["kind"], told["words"], tuple(told["trace"]))
    if "data" in cls._fields:
        fields["data"] = b""
    event: core.AnyEvent = cls(**fields)
    return event


def _begun(run: core.RunState, fields: Mapping[str, Any]) -> core.RunState:
    """Returns the state at the begin of an attempt, which has a layout of its own."""
    layout = {int(rank): str(node) for rank, node in fields["layout"].items()}
    restarts = tuple(core.Restart(**restart) for restart in fields["restarts"])
    fresh = core.new_run(layout, grace_s=run.grace_s)
    return replace(fresh, attempt=int(fields["attempt"]), restarts=restarts)


def taken_up(run: core.RunState, now: float) -> core.RunState:
    """Returns the state from which another launcher goes on.

    What had been given up is tried again: nodes that were lost, streams that are not here whole.

    Args:
        run: how the run stands by what was written down.
        now: the launcher's monotonic clock, seconds.
    """
    nodes = {name: _taken_up_node(run, node) for name, node in run.nodes.items()}
    workers = {
        rank: replace(
            worker,
            open_streams=worker.open_streams | worker.torn_streams,
            torn_streams=frozenset(),
            since=now,
        )
        for rank, worker in run.workers.items()
    }
    phase = run.phase
    if phase in (core.RunPhase.ENDED, core.RunPhase.RESTARTING):
        phase = core.RunPhase.COLLECTING
    if phase is core.RunPhase.COLLECTING and run.stop_reason is not None:
        # Whether nothing lives any more on a node that was lost is not known yet.
        phase = core.RunPhase.STOPPING
    return replace(
        run,
        nodes=MappingProxyType(nodes),
        workers=MappingProxyType(workers),
        phase=phase,
        deadline=now + phases.STOP_SLACK_S + run.grace_s,
        running_since=now,
        start_limit_s=None,
        interrupts=0,
        missing=(),
        checkpoints_pending=0,
        suspicion=None if phase is core.RunPhase.RUNNING else run.suspicion,
        policy=core.RestartPolicy(),
    )


def _taken_up_node(run: core.RunState, node: core.NodeState) -> core.NodeState:
    if node.is_reachable or run.phase is core.RunPhase.PREPARING:
        return node
    known = core.NodePhase.ORPHANED if node.problem else core.NodePhase.RUNNING
    return replace(node, phase=known)
