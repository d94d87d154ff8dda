"""The quick part of `check` that a run performs by itself: do its nodes reach each other?

It stands between what the nodes say and the run's state machine, in the conversation that the run
is held in anyway. A node that is prepared is told to listen as its workers will, the first one on
the very ctrl_port; when all are, they dial each other. Until that has gone well, nobody hears
that they are prepared; where it has not, the nodes that have to be left out are reported as failed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from launcher.core.blocked_ways import blocked_ways, find_blocked
from launcher.core.facts import Dial, NodeFacts, NodeSurvey, Survey
from launcher.core.findings import Finding
from launcher.core.model import LaunchPlan, NodeSpec
from launcher.core.node_rules import find_taken_ports
from launcher.core.state import AnyEvent, LinkLost, NodeFailed, WaysTried
from launcher.core.ways import (
    Door,
    Ports,
    bind_order,
    dial_order,
    greeting_of,
    partners,
    ports_of,
    read_dials,
    to_leave_out,
)
from launcher.run.check_facts import read_facts
from launcher.wire import events

Heard = tuple[str, AnyEvent]

_NO_PORTS = Ports((), 0)
_NO_QUESTIONS = {"python": "", "data": [], "full_hash": False, "interpreter": False}
# Of the ways that one node blocks, so many are told; `check` tells all.
_MOST_TOLD = 3


class _Stage(enum.Enum):
    """What is waited for, of every node."""

    LISTENING = "all listen"
    DIALLED = "all have dialled"
    EXPLAINED = "those that a way between is blocked have told their addresses"
    OVER = "nothing"


@dataclass
class _Trial:
    """How far one node is.

    Attributes:
        prepared: what it said then, which nobody else has heard yet.
        ports: those that it listens on; `taken`: who has the others.
        doors: what it was told to dial; `dials`: how that went.
    """

    node: NodeSpec
    slots: int
    prepared: events.NodePrepared | None = None
    ports: tuple[int, ...] | None = None
    taken: Mapping[int, str] = field(default_factory=dict)
    doors: Sequence[Door] = ()
    dials: list[Dial] | None = None
    facts: NodeFacts | None = None

    @property
    def survey(self) -> NodeSurvey:
        """What is known of it, as `check` would say it."""
        return NodeSurvey(
            self.node, self.slots, facts=self.facts, bound=self.ports or (), taken=self.taken
        )


class Preflight:
    """Lets the events of a run's nodes through, and keeps "prepared" back until they may start.

    Args:
        plan: the run's plan; where it has one node, everything passes.
        run_id: the run.
        send: tells a node something.
        wanted: whether the ways are tried at all.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        run_id: str,
        send: Callable[[str, events.Command], object],
        *,
        wanted: bool = True,
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self._send = send
        self._trials = {
            node.name: _Trial(node, len(plan.ranks_of(node.name))) for node in plan.nodes
        }
        self._asked: list[str] = []
        self._stage = _Stage.LISTENING if wanted and len(plan.nodes) > 1 else _Stage.OVER

    def sift(self, node: str, event: AnyEvent) -> Iterable[Heard]:
        """Takes an event in; returns what the run is to hear now, in order."""
        trial = self._trials.get(node)
        if self._stage is _Stage.OVER or trial is None:
            # The last of the trial is that each node has let go of its ports.
            return [] if isinstance(event, events.PortsBound) else [(node, event)]
        if isinstance(event, NodeFailed | LinkLost | events.NodeUnusable):
            del self._trials[node]
            return [(node, event), *self._advance()]
        if not self._take(trial, event):
            return [(node, event)]
        return self._advance()

    def _take(self, trial: _Trial, event: AnyEvent) -> bool:
        """Notes what a node says; returns whether that was for us."""
        name = trial.node.name
        if isinstance(event, events.NodePrepared):
            trial.prepared = event
            ports = ports_of(
                trial.slots,
                is_first=event.ctrl_port > 0,
                ctrl_port=event.ctrl_port,
                data_port=self._plan.data_port,
            )
            self._send(name, bind_order(ports, greeting_of(self._run_id, name)))
        elif isinstance(event, events.PortsBound):
            answer = events.unpack_json(event.data)
            trial.ports = (*answer["bound"], *answer["free"])
            trial.taken = {int(port): str(who) for port, who in answer["taken"].items()}
        elif isinstance(event, events.PeersDialled):
            trial.dials = read_dials(name, trial.doors, event)
        elif isinstance(event, events.FactsReported):
            trial.facts = read_facts(events.unpack_json(event.data))
        else:
            return False
        return True

    def _advance(self) -> list[Heard]:
        """Goes on where all nodes have said what is waited for."""
        heard: list[Heard] = []
        trials = self._trials.values()
        if self._stage is _Stage.LISTENING and all(each.ports is not None for each in trials):
            heard += self._give_up_taken()
            self._begin_dialling()
        if self._stage is _Stage.DIALLED and all(each.dials is not None for each in trials):
            heard.append(("", self._tell_dials()))
            self._ask_for_addresses()
        if self._stage is _Stage.EXPLAINED and all(
            self._is_explained(name) for name in self._asked
        ):
            heard += self._end()
        return heard

    def _give_up_taken(self) -> list[Heard]:
        """Reports the nodes that cannot listen as their workers will have to."""
        bad = {name: list(find_taken_ports(each.survey)) for name, each in self._trials.items()}
        heard = [(name, _failed(findings)) for name, findings in bad.items() if findings]
        for name, _ in heard:
            del self._trials[name]
        return list(heard)

    def _begin_dialling(self) -> None:
        self._stage = _Stage.DIALLED
        trials = list(self._trials.values())
        first = [door for each in trials for door in self._doors(each) if self._is_rendezvous(door)]
        for trial, numbers in zip(trials, partners(len(trials)), strict=True):
            near = [door for number in numbers for door in self._doors(trials[number])]
            trial.doors = list(dict.fromkeys([*first, *near]))
            self._send(trial.node.name, dial_order(trial.doors))

    def _doors(self, trial: _Trial) -> list[Door]:
        name, addr = trial.node.name, trial.node.addr
        greeting = greeting_of(self._run_id, name)
        return [Door(name, addr, port, greeting) for port in trial.ports or ()]

    def _is_rendezvous(self, door: Door) -> bool:
        prepared = self._trials[door.node].prepared
        return prepared is not None and prepared.ctrl_port == door.port

    @property
    def _dials(self) -> list[Dial]:
        return [
            dial
            for each in self._trials.values()
            for dial in each.dials or ()
            if dial.target in self._trials
        ]

    def _tell_dials(self) -> WaysTried:
        failed = sum(not dial.answered for dial in self._dials)
        return WaysTried(len(self._dials), failed)

    def _ask_for_addresses(self) -> None:
        """Asks for what tells why a way is blocked, of those at its ends."""
        self._stage = _Stage.EXPLAINED
        ways = blocked_ways(self._dials)
        self._asked = list(dict.fromkeys(name for way in ways for name in (way.source, way.target)))
        for name in self._asked:
            self._send(name, events.ReportFacts(events.pack_json(_NO_QUESTIONS)))

    def _is_explained(self, name: str) -> bool:
        return name not in self._trials or self._trials[name].facts is not None

    def _end(self) -> list[Heard]:
        """Has every node let go of its ports, and tells how each of them stands."""
        self._stage = _Stage.OVER
        for name in self._trials:
            self._send(name, bind_order(_NO_PORTS, ""))
        bad = self._failures()
        return [
            (name, bad.get(name) or each.prepared)
            for name, each in self._trials.items()
            if each.prepared is not None
        ]

    def _failures(self) -> dict[str, NodeFailed]:
        """Returns what is wrong with the nodes that have to be left out."""
        survey = Survey(
            tuple(each.survey for each in self._trials.values()),
            tuple(self._dials),
            fixed_ports=self._plan.data_port is not None,
        )
        left = list(find_blocked(survey))
        failures = {}
        for name in to_leave_out(blocked_ways(survey.dials)):
            own = [finding for finding in left if name in finding.nodes]
            left = [finding for finding in left if finding not in own]
            if own:
                failures[name] = _failed(own, "; `flowlaunch check` shows who reaches whom")
        return failures


def _failed(findings: Sequence[Finding], more: str = "") -> NodeFailed:
    """Returns one node's findings as what is said of a node that a run cannot use."""
    told = [
        finding.message + (f" ({finding.cause})" if finding.cause else "")
        for finding in findings[:_MOST_TOLD]
    ]
    if len(findings) > _MOST_TOLD:
        told.append(f"and {len(findings) - _MOST_TOLD} more such ways")
    return NodeFailed("; ".join(told), findings[0].fix + more)
