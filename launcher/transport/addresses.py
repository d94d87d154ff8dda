"""Which address a node stands for, and which one of ours reaches it."""

from __future__ import annotations

import ipaddress
import socket

from launcher.core.model import NodeSpec, SshSpec
from launcher.errors import NodeUnreachable
from launcher.transport.ssh_target import SshFiles, target_of

_ANY_PORT = 9


def resolve_addr(node: NodeSpec, files: SshFiles | None = None) -> str:
    """Returns the numeric IPv4 address that a node's `addr` stands for.

    A name is looked up as ssh would dial it: HostName of ``~/.ssh/config`` first, then the
    system's resolver. OneFlow takes numeric IPv4 only.

    Raises:
        NodeUnreachable: it does not resolve to an IPv4 address.
        SshConfigError: the ssh configuration cannot be followed.
    """
    if _is_ipv4(node.addr):
        return node.addr
    host = target_of(node.name, SshSpec(node.addr), files or SshFiles.of_person()).host
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise NodeUnreachable(
            f"addr {node.addr} does not resolve to an IPv4 address: {error.strerror}",
            node=node.name,
            hint="give the node's numeric IPv4 address as `addr` in cluster.yaml",
        ) from None
    return str(found[0][4][0])


def source_address(ipv4: str) -> str:
    """Returns this machine's own address on the way to an IPv4 address. Nothing is sent.

    Raises:
        OSError: there is no way to it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((ipv4, _ANY_PORT))
        return str(sock.getsockname()[0])


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
