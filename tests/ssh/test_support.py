"""The ground that tests stand on: namespaces are hosts, and leaks are noticed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from launcher.transport.ssh import SshTransport
from tests.support.leaks import assert_nothing_left, held_now
from tests.support.netns import SSH_PORT, NetHost, namespaces
from tests.support.servers import SshHost


def dial(host: NetHost, limit_s: float = 1.0) -> list[str]:
    """Returns a command that reaches a host's sshd, or fails."""
    code = f"import socket; socket.create_connection(({host.address!r}, {SSH_PORT}), {limit_s})"
    return [sys.executable, "-c", code]


def output(host: SshHost, *argv: str) -> str:
    transport = SshTransport(host.files)
    try:
        connection = transport.open(host.node, argv, timeout_s=15.0)
        got = b""
        while piece := connection.receive(4096):
            got += piece
        return got.decode().strip()
    finally:
        transport.close()


def test_hosts_have_their_own_address_home_and_key(
    netns_hosts: Callable[[int], list[NetHost]],
) -> None:
    hosts = netns_hosts(3)
    served = [host.ssh for host in hosts if host.ssh is not None]
    assert len(served) == 3
    assert len({host.host_key.fingerprint for host in served}) == 3
    for host, ssh in zip(hosts, served, strict=True):
        assert output(ssh, "sh", "-c", "echo $HOME") == str(ssh.home)
        assert host.address in output(ssh, "ip", "-4", "addr", "show", "dev", "eth0")
    hosts[0].run(dial(hosts[1]))


def test_a_link_goes_down_and_up(netns_hosts: Callable[[int], list[NetHost]]) -> None:
    first, second = netns_hosts(2)
    first.run(dial(second))
    second.link_down()
    with pytest.raises(AssertionError, match="timed out"):
        first.run(dial(second))
    second.link_up()
    first.run(dial(second, 5.0))


def test_namespaces_are_taken_away(netns_hosts: Callable[[int], list[NetHost]]) -> None:
    del netns_hosts  # Says whether namespaces can be made here.
    with namespaces(2) as hosts:
        listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        assert all(host.namespace in listed for host in hosts)
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert not any(host.namespace in listed for host in hosts)


def test_a_thread_left_behind_is_noticed() -> None:
    before, go = held_now(), threading.Event()
    thread = threading.Thread(target=go.wait, name="forgotten")
    thread.start()
    with pytest.raises(pytest.fail.Exception, match="forgotten"):
        assert_nothing_left(before, 0.05)
    go.set()
    thread.join()
    assert_nothing_left(before)


def test_a_file_left_open_is_noticed() -> None:
    before = held_now()
    fd = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(pytest.fail.Exception, match="/dev/null"):
        assert_nothing_left(before, 0.05)
    os.close(fd)
    assert_nothing_left(before)


def test_a_child_left_behind_is_noticed() -> None:
    before = held_now()
    child = subprocess.Popen(["sleep", "600"])
    with pytest.raises(pytest.fail.Exception, match="sleep 600"):
        assert_nothing_left(before, 0.05)
    child.kill()
    child.wait()
    assert_nothing_left(before)
