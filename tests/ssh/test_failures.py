"""Each way in which a node cannot be reached: its error, its words, its hint."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.core.model import NodeSpec, SshSpec, TransportKind
from launcher.errors import LoginRefused, NodeError, NodeLost, NodeUnreachable
from launcher.transport.ssh import SshTransport
from launcher.transport.ssh_target import SshFiles
from tests.support import door as doors
from tests.support.door import door
from tests.support.keys import make_key
from tests.support.netns import NetHost
from tests.support.processes import command_of, descendants
from tests.support.servers import SshHost, free_port
from tests.support.sshd import find_sshd, running_sshd

needs_sshd = pytest.mark.skipif(find_sshd() is None, reason="sshd is missing here (CI has it)")


def node(host: str, port: int | None = None, **more: str) -> NodeSpec:
    spec = SshSpec(host, port=port, host_key=more.get("host_key"), user=more.get("user"))
    return NodeSpec("n7", host, TransportKind.SSH, ssh=spec)


def failure(
    target: NodeSpec, files: SshFiles | None = None, timeout_s: float = 2.0
) -> tuple[NodeError, float]:
    """Returns what opening a connection ends with, and after how many seconds."""
    transport = SshTransport(files or SshFiles((), ()))
    began = time.monotonic()
    try:
        with pytest.raises(NodeError) as caught:
            transport.open(target, ["true"], timeout_s=timeout_s)
        return caught.value, time.monotonic() - began
    finally:
        transport.close()


def assert_said(error: NodeError, kind: type[NodeError], words: str, hint: str) -> None:
    assert type(error) is kind, error
    assert words in error.message
    assert hint in error.hint
    assert error.node == "n7"
    assert error.exit_code == 69
    assert error.__cause__ is None


def test_a_name_that_does_not_resolve() -> None:
    error, _ = failure(node("no-such-host.invalid"))
    assert_said(error, NodeUnreachable, "does not resolve", "/etc/hosts")


def test_a_port_where_nobody_listens() -> None:
    error, took_s = failure(node("127.0.0.1", free_port()))
    assert_said(error, NodeUnreachable, "refuses connections on port", "sshd running")
    assert took_s < 1.0


def test_a_network_without_a_route() -> None:
    # A class E address: the kernel itself says that there is no way.
    error, _ = failure(node("240.0.0.1"))
    assert type(error) is NodeUnreachable
    assert error.hint


def test_a_full_queue_is_silence_at_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.socket() as one, socket.socket() as two:
            for filler in (one, two):
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            error, took_s = failure(node("127.0.0.1", port), timeout_s=1.0)
    assert_said(error, NodeUnreachable, "does not answer on port", "firewall")
    assert took_s < 2.0


def test_silence_at_the_banner() -> None:
    with door(doors.stays_silent) as found:
        error, took_s = failure(node("127.0.0.1", found.port), timeout_s=1.0)
    assert_said(error, NodeUnreachable, "stays silent", "firewall")
    assert took_s < 2.0


def test_the_connect_timeout_of_the_configuration_holds(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host *\n  ConnectTimeout 1\n")
    files = SshFiles.only(tmp_path / "config", [])
    with door(doors.stays_silent) as found:
        error, took_s = failure(node("127.0.0.1", found.port), files, timeout_s=30.0)
    assert "stays silent" in error.message
    assert took_s < 5.0


def test_another_service() -> None:
    with door(doors.says(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n")) as found:
        error, _ = failure(node("127.0.0.1", found.port), timeout_s=10.0)
    assert_said(error, NodeUnreachable, "no SSH server: it says 'HTTP/1.1 400", "port")


def test_an_old_protocol() -> None:
    with door(doors.greets(b"SSH-1.5-old\r\n")) as found:
        error, _ = failure(node("127.0.0.1", found.port))
    assert_said(error, NodeUnreachable, "1.5", "")


@pytest.mark.parametrize(
    "act", [doors.says(b""), doors.says(b"Exceeded MaxStartups\r\n"), doors.resets]
)
def test_a_busy_server_is_tried_again_until_the_time_is_over(act: doors.Act) -> None:
    with door(act) as found:
        error, took_s = failure(node("127.0.0.1", found.port), timeout_s=1.5)
    assert_said(error, NodeUnreachable, "hung up before the login", "MaxStartups")
    assert found.visits >= 3
    assert took_s < 3.0


def test_a_server_that_was_busy_lets_in_later(shared_ssh_host: SshHost) -> None:
    host = shared_ssh_host
    acts = (doors.says(b"Exceeded MaxStartups\r\n"), doors.says(b""), doors.leads_to(host.port))
    with door(*acts) as found:
        spec = SshSpec(host.name, port=found.port, host_key=host.host_key.fingerprint)
        transport = SshTransport(host.files)
        target = dataclasses.replace(host.node, ssh=spec)
        connection = transport.open(target, ["echo", "in"], timeout_s=20.0)
        assert connection.receive(10) == b"in\n"
        transport.close()
    assert found.visits == 3


def test_a_server_that_hangs_up_in_the_key_exchange() -> None:
    with door(doors.says(b"SSH-2.0-x\r\n")) as found:
        error, _ = failure(node("127.0.0.1", found.port))
    assert_said(error, NodeUnreachable, "hung up at the key exchange", "log")


def test_a_server_that_falls_silent_in_the_key_exchange() -> None:
    with door(doors.greets(b"SSH-2.0-x\r\n")) as found:
        error, took_s = failure(node("127.0.0.1", found.port), timeout_s=1.0)
    assert_said(error, NodeUnreachable, "key exchange", "ssh -v")
    assert took_s < 3.0


def test_noise_in_the_key_exchange() -> None:
    with door(doors.greets(b"SSH-2.0-x\r\n" + b"\xff" * 4096)) as found:
        error, _ = failure(node("127.0.0.1", found.port))
    assert_said(error, NodeUnreachable, "key exchange", "")


@needs_sshd
@pytest.mark.parametrize(
    "setting",
    [
        "Ciphers chacha20-poly1305@openssh.com",
        "KexAlgorithms sntrup761x25519-sha512@openssh.com",
    ],
)
def test_no_common_algorithm(tmp_path: Path, setting: str) -> None:
    with running_sshd(tmp_path / "ssh", settings=[setting]) as host:
        error, _ = failure(dataclasses.replace(host.node, name="n7"), host.files)
    assert_said(error, NodeUnreachable, "no common algorithm", "KexAlgorithms")


def test_a_key_that_is_not_accepted_is_named(shared_ssh_host: SshHost, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    spec = SshSpec(shared_ssh_host.name, identity=str(other.path))
    (tmp_path / "config").write_text(
        shared_ssh_host.config.read_text().replace(
            str(shared_ssh_host.identity.path), str(tmp_path / "missing")
        )
    )
    target = NodeSpec("n7", "127.0.0.1", TransportKind.SSH, ssh=spec)
    error, _ = failure(target, SshFiles.only(tmp_path / "config"))
    assert_said(error, LoginRefused, "refuses the login: no key was accepted", "ssh-copy-id")
    assert f"{other.path} ({other.fingerprint}): not accepted" in error.message
    assert f"{tmp_path / 'missing'}: No such file or directory" in error.message


@needs_sshd
def test_a_user_that_does_not_exist(shared_ssh_host: SshHost) -> None:
    spec = SshSpec(shared_ssh_host.name, user="no-such-user")
    target = NodeSpec("n7", "127.0.0.1", TransportKind.SSH, ssh=spec)
    error, _ = failure(target, shared_ssh_host.files)
    assert_said(error, LoginRefused, "no-such-user@127.0.0.1", "check the user")


@needs_sshd
def test_too_many_authentication_failures(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "ssh", settings=["MaxAuthTries 2"]) as host:
        wrong = [make_key(tmp_path / f"wrong{number}") for number in range(4)]
        lines = "".join(f"  IdentityFile {key.path}\n" for key in wrong)
        host.config.write_text(f"Host {host.name}\n{lines}" + host.config.read_text())
        host.config.chmod(0o600)
        error, _ = failure(dataclasses.replace(host.node, name="n7"), host.files)
    assert_said(error, LoginRefused, "too many authentication failures", "IdentitiesOnly yes")
    assert wrong[0].fingerprint in error.message


@needs_sshd
def test_a_server_that_opens_no_session(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "ssh", settings=["MaxSessions 0"]) as host:
        error, _ = failure(dataclasses.replace(host.node, name="n7"), host.files)
    assert_said(error, LoginRefused, "opens no session", "MaxSessions")


@needs_sshd
def test_a_server_that_dies_is_a_lost_node(ssh_host: SshHost) -> None:
    transport = SshTransport(ssh_host.files)
    connection = transport.open(ssh_host.node, ["sh", "-c", "echo up; cat"], timeout_s=10.0)
    assert connection.receive(10) == b"up\n"
    # sshd's processes alone: where the command dies first, sshd reports a proper end.
    for pid in descendants(ssh_host.pid):
        if command_of(pid).startswith("sshd"):
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(NodeLost) as caught:
        connection.receive(10)
    assert caught.value.node == ssh_host.name
    assert "attach" in caught.value.hint
    with pytest.raises(NodeLost):
        connection.send(b"x" * 100_000)
    transport.close()


def test_an_unplugged_host_does_not_answer(
    netns_hosts: Callable[[int], list[NetHost]],
) -> None:
    (host,) = netns_hosts(1)
    assert host.ssh is not None
    target = dataclasses.replace(host.ssh.node, name="n7")
    host.link_down()
    error, took_s = failure(target, host.ssh.files, timeout_s=1.5)
    assert type(error) is NodeUnreachable
    assert took_s < 5.0
    host.link_up()
    transport = SshTransport(host.ssh.files)
    connection = transport.open(target, ["echo", "back"], timeout_s=20.0)
    assert connection.receive(10) == b"back\n"
    transport.close()


def test_dead_nodes_do_not_hold_up_living_ones(shared_ssh_host: SshHost) -> None:
    transport = SshTransport(shared_ssh_host.files, logins_at_once=1)
    with door(doors.stays_silent) as found, concurrent.futures.ThreadPoolExecutor(4) as pool:
        dead = [
            pool.submit(transport.open, node("127.0.0.1", found.port), ["true"], timeout_s=5.0)
            for _ in range(3)
        ]
        began = time.monotonic()
        connection = transport.open(shared_ssh_host.node, ["echo", "alive"], timeout_s=20.0)
        assert connection.receive(10) == b"alive\n"
        assert time.monotonic() - began < 4.5
        for one in dead:
            with pytest.raises(NodeUnreachable):
                one.result()
    transport.close()


def test_closing_the_transport_ends_the_trying() -> None:
    transport = SshTransport(SshFiles((), ()))
    with door(doors.says(b"")) as found, concurrent.futures.ThreadPoolExecutor(1) as pool:
        trying = pool.submit(
            transport.open, node("127.0.0.1", found.port), ["true"], timeout_s=60.0
        )
        with pytest.raises(concurrent.futures.TimeoutError):
            trying.result(0.5)
        transport.close()
        with pytest.raises(NodeUnreachable, match="stopping"):
            trying.result(10.0)
