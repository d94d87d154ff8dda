"""What the trial of ways lets through, keeps back and reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Set
from typing import Any

from launcher.core.model import ClusterSpec, JobSpec, LaunchPlan, NodeSpec, TransportKind
from launcher.core.plan import make_plan
from launcher.core.state import AnyEvent, LinkLost, NodeFailed, WaysTried
from launcher.run.preflight import Heard, Preflight
from launcher.wire import events

CTRL_PORT = 12138


def plan_of(count: int, data_port: int | None = 23400) -> LaunchPlan:
    names = [f"n{number}" for number in range(1, count + 1)]
    nodes = tuple(
        NodeSpec(name, f"10.0.{number // 256}.{number % 256}", TransportKind.SSH, 1)
        for number, name in enumerate(names, 1)
    )
    cluster = ClusterSpec("lab", nodes, ctrl_port=CTRL_PORT, data_port=data_port)
    return make_plan(cluster, JobSpec("job", "job.py"), slots=dict.fromkeys(names, 1), env={})


class Cluster:
    """Nodes that answer what they are sent; `down` are the ways that do not work."""

    def __init__(
        self,
        plan: LaunchPlan,
        down: Set[tuple[str, str]] = frozenset(),
        taken: dict[str, dict[int, str]] | None = None,
        **more: Any,
    ) -> None:
        self.names = [node.name for node in plan.nodes]
        self.down = down
        self.taken = taken or {}
        self.sent: list[tuple[str, events.Command]] = []
        self.passed: list[Heard] = []
        self.listens: dict[str, list[int]] = {}
        self.dialled: dict[str, list[list[Any]]] = {}
        self.flight = Preflight(plan, "run-1", lambda *words: self.sent.append(words), **more)

    def say(self, node: str, event: AnyEvent) -> None:
        """Has a node say something, and all nodes answer until nothing more is asked."""
        self.passed += self.flight.sift(node, event)
        while self.sent:
            name, command = self.sent.pop(0)
            answer = self._answer(name, command)
            self.passed += self.flight.sift(name, answer)

    def _answer(self, name: str, command: events.Command) -> events.Event:
        if isinstance(command, events.ReportFacts):
            return events.FactsReported(events.pack_json({}))
        asked = json.loads(command.data)  # type: ignore[union-attr]
        if isinstance(command, events.DialPeers):
            self.dialled[name] = asked
            words = [
                "timeout" if (name, greeting.split()[2]) in self.down else "ok"
                for _, _, greeting in asked
            ]
            return events.PeersDialled(events.pack_json(words))
        assert isinstance(command, events.BindPorts)
        taken = {port: who for port, who in self.taken.get(name, {}).items() if asked["ports"]}
        bound = [port for port in asked["ports"] if port not in taken]
        free = list(range(20000, 20000 + asked["free"]))
        self.listens[name] = bound + free
        return events.PortsBound(events.pack_json({"bound": bound, "free": free, "taken": taken}))

    def prepare(self, *names: str) -> None:
        for name in names or self.names:
            port = CTRL_PORT if name == "n1" else 0
            self.say(name, events.NodePrepared("tree", "/python", port))

    @property
    def prepared(self) -> list[str]:
        return [name for name, event in self.passed if isinstance(event, events.NodePrepared)]

    @property
    def failed(self) -> dict[str, NodeFailed]:
        return {name: event for name, event in self.passed if isinstance(event, NodeFailed)}

    @property
    def tried(self) -> list[WaysTried]:
        return [event for _, event in self.passed if isinstance(event, WaysTried)]


def test_nobody_is_prepared_before_all_have_dialled() -> None:
    nodes = Cluster(plan_of(3))
    nodes.prepare("n1", "n2")
    assert nodes.passed == []
    nodes.prepare("n3")
    assert nodes.prepared == ["n1", "n2", "n3"]
    assert nodes.tried == [WaysTried(dials=21, failed=0)]
    ports = sorted(port for addr, port, _ in nodes.dialled["n2"] if addr == "10.0.0.1")
    assert ports == [CTRL_PORT, 23400, 23401]


def test_no_port_is_held_when_the_workers_start() -> None:
    nodes = Cluster(plan_of(2))
    nodes.prepare()
    assert nodes.listens == {"n1": [], "n2": []}


def test_a_run_on_one_node_and_one_without_the_trial_dial_nobody() -> None:
    for nodes in (Cluster(plan_of(1)), Cluster(plan_of(2), wanted=False)):
        nodes.prepare()
        assert nodes.prepared == nodes.names
        assert nodes.dialled == {}
        assert nodes.tried == []


def test_free_ports_are_dialled_where_none_are_fixed() -> None:
    nodes = Cluster(plan_of(2, data_port=None))
    nodes.prepare()
    assert [row[:2] for row in nodes.dialled["n2"]] == [
        ["10.0.0.1", CTRL_PORT],
        ["10.0.0.1", 20000],
        ["10.0.0.2", 20000],
    ]


def test_a_blocked_pair_is_named_and_the_others_are_prepared() -> None:
    nodes = Cluster(plan_of(3), down={("n2", "n3")})
    nodes.prepare()
    assert nodes.prepared == ["n1", "n2"]
    (failed,) = nodes.failed.values()
    assert list(nodes.failed) == ["n3"]
    assert failed.message.startswith(
        "n2 -> n3: nothing answers at 10.0.0.3 ports 23400-23401 (all of them) (a firewall"
    )
    assert "nft insert rule" in failed.hint
    assert "flowlaunch check" in failed.hint
    assert nodes.tried == [WaysTried(dials=21, failed=2)]


def test_a_node_that_reaches_nobody_is_told_in_few_words() -> None:
    others = ["n1", "n3", "n4", "n5", "n6"]
    nodes = Cluster(plan_of(6), down={("n2", other) for other in others})
    nodes.prepare()
    assert nodes.prepared == others
    (failed,) = nodes.failed.values()
    assert failed.message.count("n2 -> ") == 3
    assert failed.message.endswith("; and 2 more such ways")


def test_a_node_whose_port_is_taken_is_reported_and_the_others_go_on() -> None:
    nodes = Cluster(plan_of(3), taken={"n2": {23401: "nginx (pid 8)"}})
    nodes.prepare()
    assert nodes.prepared == ["n1", "n3"]
    assert nodes.failed["n2"].message == (
        "port 23401, which a run needs there, is taken (it is held by nginx (pid 8))"
    )
    assert {row[0] for row in nodes.dialled["n1"]} == {"10.0.0.1", "10.0.0.3"}


def test_nodes_that_fail_meanwhile_are_not_waited_for() -> None:
    unusable = events.NodeUnusable("no_runtime", "it is missing", "provision")
    for event in (NodeFailed("down", ""), LinkLost("cut"), unusable):
        nodes = Cluster(plan_of(3))
        nodes.prepare("n1", "n3")
        nodes.say("n2", event)
        assert nodes.passed[0] == ("n2", event)
        assert nodes.prepared == ["n1", "n3"]


def test_the_last_node_alone_is_let_go_too() -> None:
    nodes = Cluster(plan_of(2))
    nodes.say("n1", LinkLost("cut"))
    nodes.prepare("n2")
    assert nodes.prepared == ["n2"]


def test_whatever_is_not_about_the_ways_passes_at_once() -> None:
    nodes = Cluster(plan_of(2))
    pong = events.Pong(1.0, 2.0)
    nodes.say("n1", pong)
    assert nodes.passed == [("n1", pong)]
    nodes.prepare()
    nodes.say("n2", pong)
    assert nodes.passed[-1] == ("n2", pong)


def test_a_thousand_nodes_dial_a_few_each_and_all_dial_the_first() -> None:
    nodes = Cluster(plan_of(1000), down={("n700", "n1"), ("n20", "n24")})
    nodes.prepare()
    assert max(len(rows) for rows in nodes.dialled.values()) < 30
    first = [
        name
        for name, rows in nodes.dialled.items()
        if ["10.0.0.1", CTRL_PORT] in [r[:2] for r in rows]
    ]
    assert len(first) == 1000
    assert set(nodes.failed) == {"n1", "n24"}
    assert f"n700 -> n1: nothing answers at 10.0.0.1 port {CTRL_PORT}" in nodes.failed["n1"].message


def test_uneven_nodes_listen_on_the_ports_of_their_own_workers() -> None:
    plan = plan_of(2)
    more = [dataclasses.replace(plan.ranks[1], local_rank=k, rank=1 + k) for k in range(3)]
    nodes = Cluster(dataclasses.replace(plan, ranks=(plan.ranks[0], *more)))
    nodes.prepare()
    assert sorted({port for addr, port, _ in nodes.dialled["n1"] if addr == "10.0.0.2"}) == list(
        range(23400, 23406)
    )
