"""Looking at hosts that nobody has described yet, for a first cluster.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from launcher.core.facts import NodeFacts, NodeSurvey, Survey
from launcher.core.first_manifest import FirstManifest, FirstNode
from launcher.core.model import ClusterSpec, NodeSpec, SshSpec, TransportKind
from launcher.core.networks import SharedNetwork, shared_networks
from launcher.run.bringup import Transports
from launcher.run.check import Questions, check_cluster

# A worker of a middling model; more workers than fit make a node useless.
WORKER_BYTES = 1_500_000_000
# Of several networks that all nodes share, so many are tried.
MOST_NETWORKS = 4
# What stands in place of an address until one is known; nobody dials it.
_NOT_KNOWN = "0.0.0.0"  # noqa: S104 - nothing is bound

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """What came of looking at some hosts.

    Attributes:
        cluster: the nodes with the addresses that were chosen.
        survey: how they fared with these.
        network: the one they share, None where there is none.
    """

    cluster: ClusterSpec
    survey: Survey
    network: SharedNetwork | None


def hosts_cluster(logins: Sequence[SshSpec]) -> ClusterSpec:
    """Returns a cluster of hosts of which only the logins are known."""
    nodes = [NodeSpec(ssh.host, _NOT_KNOWN, TransportKind.SSH, ssh=ssh) for ssh in logins]
    return ClusterSpec("lab", tuple(nodes))


def look_at(cluster: ClusterSpec, transports: Transports, on_progress: Progress) -> Survey:
    """Logs in to every host and asks what it is and has."""
    asked = Questions(runtime=False, ways=False)
    return check_cluster(cluster, transports, asked, on_progress)


def choose_addresses(
    cluster: ClusterSpec, seen: Survey, transports: Transports, on_progress: Progress
) -> Found:
    """Finds the network on which every node reaches every other, by trying.

    Args:
        cluster: the hosts.
        seen: what `look_at` saw of them; every one answered.
        transports: the ways to them.
        on_progress: is told how many nodes have answered.
    """
    facts = {node.name: node.facts for node in seen.nodes if node.facts is not None}
    named = _with_names(cluster, facts)
    tried: list[Found] = []
    for network in shared_networks(facts)[:MOST_NETWORKS]:
        found = _try(named, network.addresses, facts, network, transports, on_progress)
        if all(dial.answered for dial in found.survey.dials):
            return found
        tried.append(found)
    if not tried:
        addresses = {name: _own_address(node) for name, node in facts.items()}
        return _try(named, addresses, facts, None, transports, on_progress)
    return max(tried, key=lambda found: sum(dial.answered for dial in found.survey.dials))


def _try(
    cluster: ClusterSpec,
    addresses: Mapping[str, str],
    facts: Mapping[str, NodeFacts],
    network: SharedNetwork | None,
    transports: Transports,
    on_progress: Progress,
) -> Found:
    nodes = [
        replace(node, addr=addresses[host], slots=_slots(facts[host]))
        for node in cluster.nodes
        for host in [_host(node)]
    ]
    candidate = replace(cluster, nodes=tuple(nodes))
    return Found(candidate, check_cluster(candidate, transports, Questions(), on_progress), network)


def _host(node: NodeSpec) -> str:
    assert node.ssh is not None
    return node.ssh.host


def _with_names(cluster: ClusterSpec, facts: Mapping[str, NodeFacts]) -> ClusterSpec:
    """Returns the cluster with hosts that were given as addresses called by their own names."""
    names = {host: node.hostname.partition(".")[0] for host, node in facts.items()}
    if len(set(names.values())) < len(names) or not all(names.values()):
        return cluster
    nodes = [
        replace(node, name=names[node.name]) if node.name.replace(".", "").isdigit() else node
        for node in cluster.nodes
    ]
    return replace(cluster, nodes=tuple(nodes))


def _own_address(facts: NodeFacts) -> str:
    if facts.login_address:
        return facts.login_address
    return facts.addresses[0].address if facts.addresses else _NOT_KNOWN


def _slots(facts: NodeFacts) -> int | None:
    """Returns how many workers a node takes: None for one a GPU, else one a core that has room."""
    if facts.gpus:
        return None
    fitting = facts.cores if facts.memory_bytes is None else facts.memory_bytes // WORKER_BYTES
    return max(1, min(facts.cores, fitting))


def manifest_of(found: Found, command: str) -> FirstManifest:
    """Returns what goes into cluster.yaml.

    Args:
        found: the nodes.
        command: the command line that they were named on.
    """
    login = found.cluster.nodes[0].ssh
    assert login is not None
    said = {key: getattr(login, key) for key in ("port", "identity", "jump")}
    users = {node.ssh.user for node in found.cluster.nodes if node.ssh is not None}
    said["user"] = login.user if len(users) == 1 else None
    return FirstManifest(
        command=command,
        network=_about_network(found),
        nodes=tuple(_first_node(node, len(users) == 1) for node in found.survey.nodes),
        login=tuple((key, value) for key, value in said.items() if value is not None),
    )


def _about_network(found: Found) -> str:
    if found.network is None:
        return "addr is what the other nodes dial; these share no network, and were dialled so"
    speed = f", {found.network.mbits} Mbit/s" if found.network.mbits else ""
    where = f"{found.network.cidr} ({', '.join(found.network.interfaces)}{speed})"
    return f"addr is what the other nodes dial: on {where}, which all of them share"


def _first_node(node: NodeSurvey, same_user: bool) -> FirstNode:
    facts = node.facts or NodeFacts()
    words = [f"{facts.cores} cores"]
    if facts.memory_bytes is not None:
        words.append(f"{facts.memory_bytes / 1e9:.0f} GB")
    if facts.gpus:
        words.append(f"{len(facts.gpus)} x {facts.gpus[0] or 'NVIDIA GPU'}")
    slots = "gpus" if node.node.slots is None else node.node.slots
    user = node.node.ssh.user if node.node.ssh is not None and not same_user else None
    return FirstNode(node.name, node.node.addr, _host(node.node), slots, ", ".join(words), user)
