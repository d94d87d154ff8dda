"""Which address a node stands for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.core.model import NodeSpec, TransportKind
from launcher.errors import NodeUnreachable
from launcher.transport.addresses import resolve_addr, source_address
from launcher.transport.ssh_target import SshFiles
from tests.support.netns import NetHost


def node(addr: str) -> NodeSpec:
    return NodeSpec("n1", addr, TransportKind.SSH)


@pytest.fixture
def files(tmp_path: Path) -> SshFiles:
    config = tmp_path / "config"
    config.write_text("Host gpu1\n  HostName 10.9.8.7\nHost gpu2\n  HostName localhost\n")
    config.chmod(0o600)
    return SshFiles.only(config)


@pytest.mark.parametrize(
    ("addr", "expected"),
    [("10.1.2.3", "10.1.2.3"), ("gpu1", "10.9.8.7"), ("gpu2", "127.0.0.1")],
)
def test_resolve(files: SshFiles, addr: str, expected: str) -> None:
    assert resolve_addr(node(addr), files) == expected


@pytest.mark.parametrize("addr", ["no-such-host.invalid", "::1"])
def test_what_does_not_resolve(files: SshFiles, addr: str) -> None:
    with pytest.raises(NodeUnreachable, match="does not resolve to an IPv4 address") as caught:
        resolve_addr(node(addr), files)
    assert caught.value.node == "n1"
    assert "numeric IPv4" in caught.value.hint


def test_source_address() -> None:
    assert source_address("127.0.0.1") == "127.0.0.1"


def test_source_address_on_a_bridge(netns_hosts: Callable[[int], list[NetHost]]) -> None:
    first, _ = netns_hosts(2)
    assert source_address(first.address) == first.gateway
