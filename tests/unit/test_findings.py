"""From facts to findings: each rule, what is folded, what is told of blocked ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from launcher.core.blocked_ways import blocked_ways, matrix
from launcher.core.facts import (
    Address,
    DataFacts,
    Dial,
    Leftover,
    NodeFacts,
    NodeSurvey,
    OneFlowFacts,
    Survey,
    Trouble,
)
from launcher.core.findings import Finding, Severity, find, unusable
from launcher.core.model import NodeSpec, SshSpec, TransportKind

READY = OneFlowFacts("/py", "3.10.13", "0.9.0+381b12c", "1.26.4")
WELL = NodeFacts(
    hostname="host",
    cores=8,
    memory_bytes=64 * 10**9,
    memory_free_bytes=32 * 10**9,
    shm_free_bytes=10**9,
    home_free_bytes=50 * 10**9,
    cache_free_bytes=50 * 10**9,
    open_files=4096,
    processes=4096,
    oneflow=READY,
)


def node(name: str = "n1", slots: int | None = 2, **facts: Any) -> NodeSurvey:
    number = int(name[1:])
    spec = NodeSpec(name, f"10.0.0.{number}", TransportKind.SSH, slots, ssh=SshSpec(name))
    own = Address("eth0", f"10.0.0.{number}", 24)
    return NodeSurvey(spec, slots, facts=replace(WELL, addresses=(own,), **facts), ahead_s=0.0)


def findings(
    *nodes: NodeSurvey, dials: tuple[Dial, ...] = (), fixed: bool = False
) -> list[Finding]:
    return find(Survey(nodes, dials, 12138, fixed))


def only(*nodes: NodeSurvey, dials: tuple[Dial, ...] = (), fixed: bool = False) -> Finding:
    (found,) = findings(*nodes, dials=dials, fixed=fixed)
    assert found.fix
    return found


def test_a_node_that_is_well_has_no_finding() -> None:
    assert findings(node("n1"), node("n2")) == []


ERROR, WARNING = Severity.ERROR, Severity.WARNING
MISSING = OneFlowFacts(error="the OneFlow runtime is missing or damaged", missing=True)


@pytest.mark.parametrize(
    ("facts", "severity", "topic", "words"),
    [
        ({"oneflow": MISSING}, ERROR, "runtime", "missing"),
        ({"oneflow": OneFlowFacts("/py", error="ImportError: x")}, ERROR, "runtime", "/py"),
        ({"oneflow": replace(READY, oneflow="0.8.0")}, WARNING, "runtime", "0.8.0, not 0.9"),
        ({"gpus": ("A100",)}, WARNING, "gpus", "2 workers share 1 GPU"),
        ({"gpus": ("A", "A"), "gpu_problem": "may not open"}, WARNING, "gpus", "cannot be used"),
        ({"cores": 1}, WARNING, "cores", "2 workers share 1 core"),
        ({"home_free_bytes": 10**9}, WARNING, "disk", "1.0 GB free"),
        ({"home_free_bytes": 10**6}, ERROR, "disk", "1 MB free"),
        ({"memory_free_bytes": 5 * 10**8}, WARNING, "memory", "500 MB"),
        ({"shm_free_bytes": 10**6}, WARNING, "memory", "/dev/shm"),
        ({"open_files": 256}, WARNING, "limits", "256 files"),
        ({"processes": 100}, WARNING, "limits", "100 threads"),
        ({"leftovers": (Leftover("r-1", "n1", 77),)}, WARNING, "leftovers", "still goes on"),
        ({"leftovers": (Leftover("r-1", "n1", 0),)}, WARNING, "leftovers", "nothing of it lives"),
        ({"data": (DataFacts("/d", error="No such file"),)}, ERROR, "data", "/d: No such file"),
    ],
)
def test_each_lack_is_a_finding_with_a_fix(
    facts: dict[str, Any], severity: Severity, topic: str, words: str
) -> None:
    found = only(node("n1", **facts))
    assert (found.severity, found.topic, found.nodes) == (severity, topic, ("n1",))
    assert words in found.message


def test_a_login_that_fails_carries_the_transports_own_hint() -> None:
    failed = NodeSurvey(node("n2").node, 1, Trouble("it refuses the key", "ssh-add it"))
    found = only(node("n1"), failed)
    assert (found.topic, found.nodes, found.fix) == ("login", ("n2",), "ssh-add it")
    assert unusable([found]) == {"n2"}


def test_slots_of_gpus_need_one() -> None:
    assert only(node("n1", slots=None)).severity is ERROR
    assert findings(node("n1", slots=None, gpus=("A100",))) == []


def test_a_taken_port_and_a_wrong_clock_are_told() -> None:
    taken = replace(node("n1"), taken={12138: "nginx (pid 8)"})
    assert only(taken).cause == "it is held by nginx (pid 8)"
    late = only(replace(node("n1"), ahead_s=-40.0))
    assert "40 s behind" in late.message


def test_equal_findings_of_several_nodes_are_one() -> None:
    found = only(node("n1", cores=1), node("n2"), node("n3", cores=1))
    assert found.nodes == ("n1", "n3")


def test_errors_come_first() -> None:
    found = findings(node("n1", cores=1), node("n2", oneflow=MISSING))
    assert [each.severity for each in found] == [ERROR, WARNING]


def test_the_odd_one_is_named_and_who_has_what() -> None:
    nodes = [node(f"n{number}", same={"gpu driver": "535"}) for number in (1, 2, 3)]
    nodes[1] = node("n2", same={"gpu driver": "470"})
    found = only(*nodes)
    assert found.nodes == ("n2",)
    assert found.message == "gpu driver differs: 470 on n2, 535 on n[1,3]"


def test_data_that_differs_is_an_error() -> None:
    nodes = [
        node(f"n{number}", data=(DataFacts("/d", "file", 1, 9, digest * 64),))
        for number, digest in ((1, "a"), (2, "a"), (3, "b"))
    ]
    found = only(*nodes)
    assert (found.severity, found.nodes) == (ERROR, ("n3",))


def dials(names: str, **failed: str) -> tuple[Dial, ...]:
    """Dials of two ports between all; `n1_n2="timeout"` blocks both, `n1_n2_401=…` one."""
    found = []
    for source in names.split():
        for target in names.split():
            for port in (400, 401):
                pair = f"{source}_{target}"
                word = failed.get(f"{pair}_{port}") or failed.get(pair) or "ok"
                found.append(Dial(source, target, port, word))
    return tuple(found)


def test_one_port_one_way() -> None:
    nodes = node("n1"), node("n2")
    found = only(*nodes, dials=dials("n1 n2", n1_n2_401="timeout"), fixed=True)
    assert found.message == "n1 -> n2: nothing answers at 10.0.0.2 port 401 alone"
    assert found.cause.endswith("the other way answers")
    assert "ip saddr { 10.0.0.1 } tcp dport { 401 }" in found.fix
    assert found.nodes == ("n1", "n2")


def test_sources_that_fail_alike_are_one_finding() -> None:
    nodes = [node(f"n{number}") for number in (1, 2, 3)]
    blocked = dials("n1 n2 n3", n1_n3="timeout", n2_n3="timeout")
    found = only(*nodes, dials=blocked)
    assert found.message == "n[1-2] -> n3: nothing answers at 10.0.0.3 ports 400-401 (all of them)"
    assert "fixed ctrl_port and data_port" in found.fix


def test_a_reject_by_the_machine_itself_is_no_missing_route() -> None:
    near = only(node("n1"), node("n2"), dials=dials("n1 n2", n1_n2="unreachable"), fixed=True)
    assert "firewall" in near.cause
    assert "nft" in near.fix
    far = node("n2")
    far = replace(far, facts=replace(WELL, addresses=(Address("eth0", "10.0.0.2", 31),)))
    assert "no route" in only(node("n1"), far, dials=dials("n1 n2", n1_n2="unreachable")).cause


def test_a_loopback_addr_is_told() -> None:
    wrong = node("n2")
    wrong = replace(wrong, node=replace(wrong.node, addr="127.0.1.1"))
    found = only(node("n1"), wrong, dials=dials("n1 n2", n1_n2="stranger"))
    assert "leads every machine to itself" in found.cause
    assert "such as 10.0.0.2" in found.fix


def test_an_addr_of_nobody_names_the_one_that_the_others_are_on() -> None:
    wrong = node("n2")
    own = (Address("eth1", "192.168.7.2", 24), Address("eth0", "10.0.0.2", 24))
    assert wrong.facts is not None
    wrong = replace(
        wrong,
        node=replace(wrong.node, addr="10.0.0.77"),
        facts=replace(wrong.facts, addresses=own),
    )
    first = node("n1")
    assert first.facts is not None
    both = (Address("eth1", "192.168.7.1", 24), Address("eth0", "10.0.0.1", 24))
    first = replace(first, facts=replace(first.facts, addresses=both))
    found = only(first, wrong, dials=dials("n1 n2", n1_n2="timeout"))
    assert "none of n2's own addresses" in found.cause
    assert "such as 10.0.0.2" in found.fix


def test_one_bad_node_of_many_makes_a_small_matrix() -> None:
    names = [f"n{number}" for number in range(1, 65)]
    failed = {f"{name}_n7": "timeout" for name in names if name != "n7"}
    shown = matrix(dials(" ".join(names), **failed))
    assert len(shown.groups) == 2
    bad = shown.groups.index(("n7",))
    good = 1 - bad
    assert shown.cells[good][bad] == "timeout"
    assert shown.cells[bad][good] == shown.cells[good][good] == "ok"


def test_a_way_knows_whether_anything_answers() -> None:
    (way,) = blocked_ways(dials("n1 n2", n1_n2_401="refused"))
    assert (way.ports, way.all_ports) == ((401,), False)
    (way,) = blocked_ways(dials("n1 n2", n1_n2="refused"))
    assert (way.ports, way.all_ports) == ((400, 401), True)
