"""Ways around: ProxyJump over one and two hops, ProxyCommand."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.core.model import NodeSpec, SshSpec, TransportKind
from launcher.errors import HostKeyUnknown, NodeUnreachable
from launcher.transport.ssh import SshTransport
from launcher.transport.ssh_target import SshFiles
from tests.support.netns import NetHost
from tests.support.servers import SshHost, config_text, join_configs
from tests.support.sshd import find_sshd

pytestmark = pytest.mark.skipif(
    find_sshd() is None and os.environ.get("CI") != "true",
    reason="sshd is missing here (CI has it)",
)


def node(name: str, jump: str | None = None) -> NodeSpec:
    return NodeSpec(name, "127.0.0.1", TransportKind.SSH, ssh=SshSpec(name, jump=jump))


def echo(files: SshFiles, target: NodeSpec) -> None:
    transport = SshTransport(files)
    try:
        connection = transport.open(target, ["cat"], timeout_s=15.0)
        connection.send(b"x" * 300_000)
        got = b""
        while len(got) < 300_000:
            got += connection.receive(100_000)
        assert got == b"x" * 300_000
    finally:
        transport.close()


@pytest.fixture
def files(ssh_hosts: Callable[[int], list[SshHost]], tmp_path: Path) -> SshFiles:
    return SshFiles.only(join_configs(tmp_path, ssh_hosts(3)))


def test_one_hop(files: SshFiles) -> None:
    echo(files, node("node3", "node1"))


def test_two_hops(files: SshFiles) -> None:
    echo(files, node("node3", "node1,node2"))


def test_the_nodes_behind_a_hop_share_its_login(files: SshFiles, tmp_path: Path) -> None:
    transport = SshTransport(files)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        opened = [
            pool.submit(transport.open, behind, ["echo", "in"], timeout_s=15.0)
            for behind in (
                dataclasses.replace(node("node2", "node1"), name=f"g{n}") for n in range(6)
            )
        ]
        for one in opened:
            assert one.result().receive(10) == b"in\n"
    transport.close()
    log = (tmp_path / "node1" / "sshd.log").read_text()
    assert log.count("Accepted publickey") == 1


def test_a_hop_that_cannot_reach_the_node(files: SshFiles) -> None:
    transport = SshTransport(files)
    far = NodeSpec("far", "x", TransportKind.SSH, ssh=SshSpec("127.0.0.1", port=1, jump="node1"))
    with pytest.raises(NodeUnreachable, match=r"does not lead on to 127\.0\.0\.1:1") as caught:
        transport.open(far, ["true"], timeout_s=10.0)
    assert "AllowTcpForwarding" in caught.value.hint
    assert caught.value.node == "far"
    transport.close()


def test_the_hops_own_key_is_checked(files: SshFiles, tmp_path: Path) -> None:
    (tmp_path / "node1" / "known_hosts").write_text("")
    transport = SshTransport(files)
    with pytest.raises(HostKeyUnknown) as caught:
        transport.open(node("node2", "node1"), ["true"], timeout_s=10.0)
    assert caught.value.node == "node2"
    transport.close()


def test_proxy_command(ssh_host: SshHost, tmp_path: Path) -> None:
    config = tmp_path / "proxied"
    # The command dials; what is configured as the address is nowhere.
    dial = f"ssh -F {ssh_host.config} -W 127.0.0.1:%p {ssh_host.name}"
    text = config_text(ssh_host).replace(f"HostName {ssh_host.address}", "HostName nowhere.invalid")
    config.write_text(text + f"  HostKeyAlias it\n  ProxyCommand {dial}\n")
    ssh_host.known_hosts.write_text(ssh_host.known_line + f"it {ssh_host.host_key.public}\n")
    echo(SshFiles.only(config), ssh_host.node)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo cannot dial >&2; exit 3", "cannot dial"),
        ("no-such-proxy-program %h", "no-such-proxy-program"),
        ("true", "said nothing"),
    ],
)
def test_a_proxy_command_that_fails(ssh_host: SshHost, command: str, words: str) -> None:
    ssh_host.config.write_text(ssh_host.config.read_text() + f"  ProxyCommand {command}\n")
    transport = SshTransport(ssh_host.files)
    with pytest.raises(NodeUnreachable) as caught:
        transport.open(ssh_host.node, ["true"], timeout_s=5.0)
    assert words in caught.value.message
    assert "by hand" in caught.value.hint
    transport.close()


def test_a_silent_proxy_command(ssh_host: SshHost) -> None:
    ssh_host.config.write_text(ssh_host.config.read_text() + "  ProxyCommand sleep 600\n")
    transport = SshTransport(ssh_host.files)
    with pytest.raises(NodeUnreachable, match="stays silent"):
        transport.open(ssh_host.node, ["true"], timeout_s=1.0)
    transport.close()


def test_a_jump_into_another_network(
    netns_hosts: Callable[[int], list[NetHost]], tmp_path: Path
) -> None:
    """From n1 the launcher reaches n2, though its own way to n2 is cut."""
    first, second = netns_hosts(2)
    assert first.ssh is not None and second.ssh is not None
    files = SshFiles.only(join_configs(tmp_path, [first.ssh, second.ssh]))
    second.run(["ip", "route", "add", "blackhole", f"{second.gateway}/32"])
    transport = SshTransport(files)
    with pytest.raises(NodeUnreachable):
        transport.open(second.ssh.node, ["true"], timeout_s=1.5)
    transport.close()
    echo(files, NodeSpec("n2", "", TransportKind.SSH, ssh=SshSpec("n2", jump="n1")))
