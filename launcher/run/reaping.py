"""Finding and ending what runs left on nodes: by the run's id, never by a program's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.core.model import NodeSpec
from launcher.core.reaping import (
    AgentStanding,
    FoundProcess,
    FoundRun,
    KnownStanding,
    Verdict,
    judge,
    removable,
)
from launcher.errors import FlowlaunchError
from launcher.run.bringup import Transports
from launcher.run.stopping import ANSWER_S, END_LIMIT_S
from launcher.run.talk import Talk, on_all
from launcher.wire import events

# A node with a full disk and a thousand old directories takes its time to look at them.
LOOK_LIMIT_S = 60.0


@dataclass(frozen=True)
class Wish:
    """What is to be reaped.

    Attributes:
        run: only this run, whatever it does; None is everything that is left over.
        grace_s: from TERM to KILL.
        keep: directories of the newest so many runs stay on each node.
        older_than_s: of the others go those to which nobody has written for longer.
        ends: False only looks.
    """

    run: str | None
    grace_s: float
    keep: int
    older_than_s: float
    ends: bool = True


@dataclass(frozen=True)
class NodeReaped:
    """What came of one node.

    Attributes:
        found: what there was.
        ended: how many processes were ended, by run.
        survivors: the processes that were to end and live on.
        removed: the runs whose directories were removed; with `ends` False, that would be.
        error: why the node was not reached, None where it was.
    """

    node: str
    found: tuple[FoundRun, ...] = ()
    ended: Mapping[str, int] = field(default_factory=dict)
    survivors: tuple[FoundProcess, ...] = ()
    removed: tuple[str, ...] = ()
    error: FlowlaunchError | None = None


def reap(
    nodes: Sequence[NodeSpec],
    transports: Transports,
    known: Mapping[str, KnownStanding],
    wish: Wish,
) -> tuple[list[NodeReaped], dict[str, Verdict]]:
    """Looks at all nodes, decides, and ends what is left over.

    Args:
        nodes: where to look.
        transports: the ways there.
        known: the runs of this machine, by their ids.
        wish: what is to be reaped.

    Returns:
        What came of each node, in the given order, and what was decided of each run that had
        processes somewhere.
    """
    looks = [
        NodeReaped(node.name, error=outcome) if isinstance(outcome, FlowlaunchError) else outcome
        for node, outcome in zip(nodes, on_all(nodes, _look(transports, wish)), strict=True)
    ]
    verdicts = _verdicts(looks, known, wish)
    plans = {look.node: _plan(look, verdicts, wish) for look in looks}

    def work(node: NodeSpec) -> NodeReaped:
        return _carry_out(node, transports, plans[node.name], wish)

    done = [
        replace(look, error=outcome) if isinstance(outcome, FlowlaunchError) else outcome
        for look, outcome in zip(looks, on_all(nodes, work), strict=True)
    ]
    return done, verdicts


def _look(transports: Transports, wish: Wish) -> Callable[[NodeSpec], NodeReaped]:
    def work(node: NodeSpec) -> NodeReaped:
        with _visit(node, transports) as talk:
            talk.wait_for(events.AgentReady, ANSWER_S)
            talk.send(events.FindRuns())
            told = events.unpack_json(talk.wait_for(events.RunsFound, LOOK_LIMIT_S).data)
        found = [_found(run, node.name, fields) for run, fields in told.items()]
        wanted = [each for each in found if wish.run in (None, each.run)]
        return NodeReaped(node.name, tuple(wanted))

    return work


def _visit(node: NodeSpec, transports: Transports) -> Talk:
    return Talk(node, transports, "", mode="look", lease_s=LOOK_LIMIT_S)


def _found(run: str, host: str, fields: Mapping[str, Any]) -> FoundRun:
    return FoundRun(
        run,
        host,
        tuple(map(_process, fields["processes"])),
        tuple(
            AgentStanding(each["linked"], each["silent_s"], each["detached"])
            for each in fields["standings"]
        ),
        fields["directory"],
        fields["age_s"],
        fields["bytes"],
    )


def _process(fields: Mapping[str, Any]) -> FoundProcess:
    keys = ("pid", "node", "kind", "rank", "command")
    return FoundProcess(**{key: fields[key] for key in keys})


def _verdicts(
    looks: Sequence[NodeReaped], known: Mapping[str, KnownStanding], wish: Wish
) -> dict[str, Verdict]:
    found = [each for look in looks for each in look.found]
    alive = dict.fromkeys(each.run for each in found if each.processes)
    return {
        run: judge(run, found, known.get(run), is_named=run == wish.run)
        for run in alive
    }  # fmt: skip


def _plan(look: NodeReaped, verdicts: Mapping[str, Verdict], wish: Wish) -> NodeReaped:
    keep = wish.keep if wish.run is None else 0
    going = removable(look.found, verdicts, keep=keep, older_than_s=wish.older_than_s)
    ending = {
        each.run: len(each.processes)
        for each in look.found
        if each.processes and verdicts[each.run].ends
    }
    return replace(look, ended=ending, removed=tuple(going))


def _carry_out(node: NodeSpec, transports: Transports, plan: NodeReaped, wish: Wish) -> NodeReaped:
    if plan.error is not None or not wish.ends or not (plan.ended or plan.removed):
        return plan
    order = events.pack_json({"end": list(plan.ended), "remove": list(plan.removed)})
    limit_s = wish.grace_s + END_LIMIT_S + LOOK_LIMIT_S
    with _visit(node, transports) as talk:
        talk.wait_for(events.AgentReady, ANSWER_S)
        talk.send(events.EndRuns(wish.grace_s, order))
        answer = events.unpack_json(talk.wait_for(events.RunsEnded, limit_s).data)
    return replace(
        plan,
        ended=answer["ended"],
        survivors=tuple(map(_process, answer["left"])),
        removed=tuple(answer["removed"]),
    )
