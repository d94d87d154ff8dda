"""Trying every node as a run will use it: login, agent, facts, and the ways between the nodes.

All nodes at once, one link each. When each one listens on the ports that its workers will have,
all of them dial all others on the addresses that OneFlow will use. Nothing stays on a node.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from launcher.core.facts import Dial, NodeSurvey, Survey, Trouble
from launcher.core.model import ClusterSpec, NodeSpec
from launcher.core.state import AnyEvent, LinkLost, NodeConnected, NodeFailed
from launcher.core.ways import Door, bind_order, dial_order, greeting_of, ports_of, read_dials
from launcher.errors import NodeError
from launcher.run.bringup import NodeDriver, Transports, new_inbox
from launcher.run.check_facts import read_facts
from launcher.run.heartbeat import Clocks
from launcher.run.link import NodeLink
from launcher.run.planning import resolve_nodes
from launcher.wire import events

# An agent answers pings whatever it is busy with.
SILENCE_S = 30.0
_PING_EVERY_S = 1.0
_LEASE_S = 30.0
_END_LIMIT_S = 5.0
_TICK_S = 0.1
_CLOCK_PINGS = 3


@dataclass(frozen=True)
class Questions:
    """What `check` asks beyond what it always does.

    Attributes:
        data: paths on the nodes whose content should be equal everywhere.
        full_hash: whether every byte of them is read.
        runtime: whether the workers' python is looked at.
        interpreter: whether to look for the Python that a runtime would be built on.
        ways: whether the nodes bind their ports and dial each other.
    """

    data: tuple[str, ...] = ()
    full_hash: bool = False
    runtime: bool = True
    interpreter: bool = False
    ways: bool = True


def check_cluster(
    cluster: ClusterSpec,
    transports: Transports,
    questions: Questions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Survey:
    """Tries every node of a cluster, and every way between two of them.

    Args:
        cluster: the nodes that would take part; their addresses need not be numeric yet.
        transports: the ways to them.
        questions: what else is asked.
        on_progress: is told how many nodes have answered, of how many.

    Returns:
        Everything that was found out; what failed on one node is in its survey.
    """
    nodes, troubles = _resolved(cluster.nodes) if questions.ways else (cluster.nodes, [])
    with _Visits(replace(cluster, nodes=nodes), transports, questions, on_progress) as visits:
        survey = visits.survey()
    found = {node.name: node for node in (*survey.nodes, *troubles)}
    return replace(survey, nodes=tuple(found[node.name] for node in cluster.nodes))


def _resolved(nodes: Sequence[NodeSpec]) -> tuple[tuple[NodeSpec, ...], list[NodeSurvey]]:
    """Returns the nodes with numeric addresses, and those whose name stands for none."""
    good, troubles = [], []
    for node in nodes:
        try:
            resolve_nodes([node])
            good.append(node)
        except NodeError as error:
            trouble = Trouble(error.message, error.hint)
            troubles.append(NodeSurvey(node, node.slots, trouble))
    return resolve_nodes(good), troubles


@dataclass
class _Visit:
    """How far one node is."""

    survey: NodeSurvey
    driver: NodeDriver
    began: float
    heard: float
    pings: int = 0
    ports: tuple[int, ...] | None = None
    dials: list[Dial] | None = None
    is_over: bool = False

    @property
    def is_heard_out(self) -> bool:
        """Whether no more facts are to come."""
        return self.is_over or self.survey.facts is not None

    @property
    def is_listening(self) -> bool:
        return self.is_over or self.ports is not None

    @property
    def has_dialled(self) -> bool:
        return self.is_over or self.dials is not None


class _Visits:
    """All nodes, from the first dial to the last goodbye."""

    def __init__(
        self,
        cluster: ClusterSpec,
        transports: Transports,
        questions: Questions,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._cluster = cluster
        self._questions = questions
        self._on_progress = on_progress
        self._run_id = f"check-{secrets.token_hex(4)}"
        self._inbox = new_inbox()
        self._clocks = Clocks()
        self._next_ping = 0.0
        self._doors: list[Door] = []
        now = time.monotonic()
        self._visits = {
            node.name: _Visit(
                NodeSurvey(node, node.slots), self._driver(node, transports), now, now
            )
            for node in cluster.nodes
        }

    def _driver(self, node: NodeSpec, transports: Transports) -> NodeDriver:
        return NodeDriver(node, transports[node.transport], self._inbox, self._converse)

    def __enter__(self) -> _Visits:
        for visit in self._visits.values():
            visit.driver.start(self._run_id, None)
        return self

    def __exit__(self, *problem: object) -> None:
        """Lets every agent clear up, then lets go of all links."""
        for visit in self._visits.values():
            visit.driver.send(events.EndRun(keep=False))
        deadline = time.monotonic() + _END_LIMIT_S
        while time.monotonic() < deadline and any(map(_is_linked, self._visits.values())):
            self._take_next()
        for visit in self._visits.values():
            visit.driver.close()
        while time.monotonic() < deadline and any(map(_is_alive, self._visits.values())):
            self._take_next()

    def survey(self) -> Survey:
        """Hears every node out, and has them dial each other in between."""
        if self._questions.ways:
            self._wait(lambda visit: visit.is_listening)
            self._begin_dialling()
            self._wait(lambda visit: visit.has_dialled)
        self._wait(lambda visit: visit.is_heard_out)
        first = next(iter(self._visits.values()), None)
        return Survey(
            nodes=tuple(visit.survey for visit in self._visits.values()),
            dials=tuple(dial for visit in self._visits.values() for dial in visit.dials or ()),
            ctrl_port=first.ports[0] if first is not None and first.ports else 0,
            fixed_ports=self._cluster.data_port is not None,
        )

    def _wait(self, is_done: Callable[[_Visit], bool]) -> None:
        while True:
            done = sum(map(is_done, self._visits.values()))
            self._on_progress(done, len(self._visits))
            if done == len(self._visits):
                return
            self._take_next()
            self._tend()

    def _take_next(self) -> None:
        try:
            name, event = self._inbox.get(timeout=_TICK_S)
            while True:
                self._take(self._visits[name], event)
                name, event = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _tend(self) -> None:
        """Keeps the agents alive, and gives up those that are silent."""
        now = time.monotonic()
        if now < self._next_ping:
            return
        self._next_ping = now + _PING_EVERY_S
        for visit in self._visits.values():
            if visit.driver.is_linked and not visit.is_over:
                visit.driver.send(events.Ping(time.time()))
                if now - visit.heard > SILENCE_S:
                    hint = "look at the machine's load, and at the network on the way there"
                    self._end(
                        visit, Trouble(f"its agent has been silent for {SILENCE_S:g} s", hint)
                    )

    # What is said to a node

    def _converse(self, link: NodeLink) -> None:
        node = link.node
        asked = {
            "python": node.python if self._questions.runtime else "",
            "data": list(self._questions.data),
            "full_hash": self._questions.full_hash,
            "interpreter": self._questions.interpreter,
        }
        link.send(events.Hello(events.VERSION, _LEASE_S))
        link.send(events.ReportFacts(events.pack_json(asked)))
        if self._questions.ways and self._knows_ports(node):
            link.send(self._bind_ports(node, node.slots or 1))
        link.send(events.Ping(time.time()))

    def _knows_ports(self, node: NodeSpec) -> bool:
        """Whether a node's ports do not wait for a count of its GPUs."""
        return node.slots is not None or self._cluster.data_port is None

    def _bind_ports(self, node: NodeSpec, slots: int) -> events.BindPorts:
        """Returns the order to listen: on the ports of a run, or on as many chosen ones."""
        ports = ports_of(
            slots,
            is_first=node.name == self._cluster.nodes[0].name,
            ctrl_port=self._cluster.ctrl_port,
            data_port=self._cluster.data_port,
        )
        return bind_order(ports, greeting_of(self._run_id, node.name))

    def _begin_dialling(self) -> None:
        self._doors = [
            Door(name, visit.survey.node.addr, port, greeting_of(self._run_id, name))
            for name, visit in self._visits.items()
            for port in visit.ports or ()
            if not visit.is_over
        ]
        command = dial_order(self._doors)
        for visit in self._visits.values():
            visit.driver.send(command)

    # What a node says

    def _take(self, visit: _Visit, event: AnyEvent) -> None:
        visit.heard = time.monotonic()
        if isinstance(event, NodeConnected):
            visit.survey = replace(visit.survey, login_s=visit.heard - visit.began)
        elif isinstance(event, NodeFailed):
            self._end(visit, Trouble(event.message, event.hint))
        elif isinstance(event, LinkLost):
            self._end(visit, Trouble(event.message, "look at that machine, and at the network"))
        elif isinstance(event, events.NodeUnusable):
            self._end(visit, Trouble(event.message, event.hint))
        elif isinstance(event, events.Pong):
            self._take_pong(visit, event)
        else:
            self._take_answer(visit, event)

    def _take_pong(self, visit: _Visit, pong: events.Pong) -> None:
        ahead_s = self._clocks.measure(visit.survey.name, pong, time.time())
        if ahead_s is not None:
            visit.survey = replace(visit.survey, ahead_s=ahead_s)
        visit.pings += 1
        if visit.pings < _CLOCK_PINGS:
            visit.driver.send(events.Ping(time.time()))

    def _take_answer(self, visit: _Visit, event: AnyEvent) -> None:
        if isinstance(event, events.FactsReported):
            self._take_facts(visit, events.unpack_json(event.data))
        elif isinstance(event, events.PortsBound):
            self._take_ports(visit, events.unpack_json(event.data))
        elif isinstance(event, events.PeersDialled):
            visit.dials = read_dials(visit.survey.name, self._doors, event)

    def _take_facts(self, visit: _Visit, found: Mapping[str, Any]) -> None:
        facts = read_facts(found)
        visit.survey = replace(visit.survey, facts=facts)
        node = visit.survey.node
        if node.slots is None:
            count = len(facts.gpus)
            visit.survey = replace(visit.survey, slots=count or None)
            if self._questions.ways and not self._knows_ports(node):
                visit.driver.send(self._bind_ports(node, count))

    def _take_ports(self, visit: _Visit, answer: Mapping[str, Any]) -> None:
        visit.ports = (*answer["bound"], *answer["free"])
        taken = {int(port): str(who) for port, who in answer["taken"].items()}
        visit.survey = replace(visit.survey, bound=visit.ports, taken=taken)

    def _end(self, visit: _Visit, trouble: Trouble) -> None:
        """Notes that nothing more comes of a node; the first reason holds."""
        if not visit.is_over:
            visit.is_over = True
            visit.survey = replace(visit.survey, trouble=trouble)


def _is_linked(visit: _Visit) -> bool:
    return visit.driver.is_linked


def _is_alive(visit: _Visit) -> bool:
    return visit.driver.is_alive
