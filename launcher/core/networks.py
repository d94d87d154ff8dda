"""Which network a set of nodes shares, by the addresses that each one has. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.core.facts import Address, NodeFacts

# Bridges and tunnels that a machine makes for its own guests: the same address on every one.
_OF_GUESTS = ("docker", "br-", "virbr", "veth", "cni", "flannel", "podman", "lxc", "vmnet", "kube")


@dataclass(frozen=True)
class SharedNetwork:
    """A network that every node has an address on.

    Attributes:
        cidr: such as ``10.0.0.0/24``.
        addresses: each node's own there, by its name.
        interfaces: what it is called on the nodes.
        mbits: what the slowest of the links can carry, None where one does not say.
    """

    cidr: str
    addresses: Mapping[str, str]
    interfaces: tuple[str, ...]
    mbits: int | None


def shared_networks(facts: Mapping[str, NodeFacts]) -> list[SharedNetwork]:
    """Returns the networks that all nodes share, the fastest first.

    Of equally fast ones, that comes last by which the launcher itself logs in: the other is
    likely there for what the nodes have to say to each other.

    Args:
        facts: of each node, by its name.
    """
    found: dict[str, dict[str, Address]] = {}
    for name, node in facts.items():
        for address in node.addresses:
            if not address.interface.startswith(_OF_GUESTS) and address.prefix < 32:
                found.setdefault(_cidr(address), {}).setdefault(name, address)
    shared = [
        _network(cidr, addresses)
        for cidr, addresses in found.items()
        if len(addresses) == len(facts)
        and len({address.address for address in addresses.values()}) == len(facts)
    ]
    logins = {node.login_address for node in facts.values()}
    return sorted(
        shared,
        key=lambda each: (-(each.mbits or 0), not logins.isdisjoint(each.addresses.values())),
    )


def _cidr(address: Address) -> str:
    network = ipaddress.IPv4Network(f"{address.address}/{address.prefix}", strict=False)
    return str(network)


def _network(cidr: str, addresses: Mapping[str, Address]) -> SharedNetwork:
    speeds = [address.mbits for address in addresses.values()]
    known = [speed for speed in speeds if speed is not None]
    return SharedNetwork(
        cidr,
        {name: address.address for name, address in addresses.items()},
        tuple(dict.fromkeys(address.interface for address in addresses.values())),
        min(known) if len(known) == len(speeds) else None,
    )
