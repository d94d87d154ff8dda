"""The first cluster.yaml: what it says, and that it is read as it was meant."""

from __future__ import annotations

from launcher.core.facts import Address, NodeFacts
from launcher.core.first_manifest import FirstManifest, FirstNode, first_manifest
from launcher.core.manifest import parse_manifest
from launcher.core.networks import shared_networks


def written(*nodes: FirstNode, login: tuple[tuple[str, str | int], ...] = ()) -> str:
    return first_manifest(FirstManifest("flowlaunch init …", "addr is …", nodes, login))


def row(count: int, slots: int | str = 4) -> list[FirstNode]:
    return [
        FirstNode(f"gpu{number:02}", f"10.0.0.{number}", f"gpu{number:02}", slots, "8 cores")
        for number in range(1, count + 1)
    ]


def test_nodes_in_step_are_one_entry_that_reads_back() -> None:
    text = written(*row(12), login=(("user", "train"), ("port", 2222)))
    assert '- {name: "gpu[01-12]", addr: "10.0.0.[1-12]", ssh: {host: "gpu[01-12]"}}' in text
    spec = parse_manifest(text, "cluster.yaml")
    assert [node.name for node in spec.nodes] == [f"gpu{number:02}" for number in range(1, 13)]
    assert [node.addr for node in spec.nodes] == [f"10.0.0.{number}" for number in range(1, 13)]
    assert all(node.ssh and node.ssh.host == node.name for node in spec.nodes)
    assert all(
        node.ssh and (node.ssh.user, node.ssh.port) == ("train", 2222) for node in spec.nodes
    )
    assert {node.slots for node in spec.nodes} == {4}


def test_uneven_nodes_keep_their_own_slots_and_users() -> None:
    nodes = (
        FirstNode("a", "10.0.0.7", "a", "gpus", "2 x A100", "train"),
        FirstNode("b", "10.0.0.8", "10.0.0.8", 2, "2 cores", "no"),
    )
    spec = parse_manifest(written(*nodes), "cluster.yaml")
    assert [node.slots for node in spec.nodes] == [None, 2]
    assert [node.ssh.user for node in spec.nodes if node.ssh] == ["train", "no"]
    assert [node.ssh.host for node in spec.nodes if node.ssh] == ["a", "10.0.0.8"]


def facts(login: str, *addresses: Address) -> NodeFacts:
    return NodeFacts(login_address=login, addresses=addresses)


def test_the_fastest_network_that_all_share_comes_first() -> None:
    found = shared_networks(
        {
            f"n{number}": facts(
                f"10.0.0.{number}",
                Address("eth0", f"10.0.0.{number}", 24, 1000),
                Address("ib0", f"10.9.0.{number}", 24, 100_000),
                Address("docker0", "172.17.0.1", 16),
                Address("eth2", "192.168.0.1", 24, 400_000),
                Address("eth3", f"10.{number}.0.1", 24, 400_000),
            )
            for number in (1, 2, 3)
        }
    )
    assert [network.cidr for network in found] == ["10.9.0.0/24", "10.0.0.0/24"]
    assert found[0].mbits == 100_000
    assert dict(found[0].addresses) == {f"n{number}": f"10.9.0.{number}" for number in (1, 2, 3)}
