"""Several hosts on one machine: network namespaces on a bridge, each with its own address.

The 10.x addresses exist nowhere else, so what reaches one has really crossed the bridge. The
hosts share processes, files and users; each has its own HOME, host key and sshd.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.keys import KeyPair, make_key
from tests.support.servers import SshHost
from tests.support.sshd import find_sshd, running_sshd

SSH_PORT = 22
_counter = itertools.count()


def can_make_namespaces() -> bool:
    """Says whether this process may make namespaces; where CI is true, it must."""
    able = os.getuid() == 0 and shutil.which("ip") is not None and _try()
    if not able and os.environ.get("CI") == "true":
        pytest.fail("network namespaces cannot be made: run as root, with iproute2 installed")
    return able


def _try() -> bool:
    name = f"flprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode == 0:
        _ip("netns", "del", name)
    return made.returncode == 0


@dataclass(frozen=True)
class NetHost:
    """One namespace.

    Attributes:
        address: its own on the bridge.
        gateway: the root namespace's address on the bridge.
    """

    name: str
    namespace: str
    interface: str
    address: str
    gateway: str
    ssh: SshHost | None = None

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> str:
        """Runs a command in the namespace and returns its standard output."""
        full = ["ip", "netns", "exec", self.namespace, *argv]
        done = subprocess.run(full, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, f"{full}: {done.stderr}"
        return done.stdout

    def link_down(self) -> None:
        """Pulls the host's cable."""
        _ip("link", "set", self.interface, "down")

    def bar(self) -> None:
        """Has this machine find no way there, at once and not after a timeout."""
        _ip("route", "add", "unreachable", f"{self.address}/32")

    def unbar(self) -> None:
        """Lets it find the way again."""
        _ip("route", "del", "unreachable", f"{self.address}/32")

    def link_up(self) -> None:
        """Puts the cable back."""
        _ip("link", "set", self.interface, "up")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _free_prefix(pid: int, group: int) -> str:
    """Returns a network that no interface is in: a test that was killed may have left its own."""
    shown = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True)
    for number in range(250):
        prefix = f"10.{200 + pid // 250 % 50}.{(pid + 83 * group + number) % 250}"
        if f" {prefix}." not in shown.stdout:
            return prefix
    raise AssertionError("250 networks are in use; what tests have left them?")


@contextlib.contextmanager
def namespaces(count: int) -> Iterator[list[NetHost]]:
    """Makes hosts on a bridge of their own, and takes all of it away again."""
    group = next(_counter)
    tag = f"{os.getpid()}{chr(ord('a') + group % 26)}"
    prefix = _free_prefix(os.getpid(), group)
    bridge, gateway = f"flb{tag}", f"{prefix}.254"
    with contextlib.ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{gateway}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        yield [
            stack.enter_context(_namespace(number, tag, bridge, prefix, gateway))
            for number in range(1, count + 1)
        ]


@contextlib.contextmanager
def _namespace(number: int, tag: str, bridge: str, prefix: str, gateway: str) -> Iterator[NetHost]:
    namespace, interface = f"fl{tag}{number}", f"flv{tag}{number}"
    address = f"{prefix}.{number}"
    _ip("netns", "add", namespace)
    try:
        _ip("link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", interface, "master", bridge, "up")
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        _ip("-n", namespace, "route", "add", "default", "via", gateway)
        yield NetHost(f"n{number}", namespace, interface, address, gateway)
    finally:
        # Takes the pair of interfaces with it.
        _ip("netns", "del", namespace)


def _clock(home: Path, ahead_s: int) -> list[str]:
    """Returns the line of sshd_config that sets the clock of all that is started by a login."""
    if ahead_s == 0:
        return []
    [library] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    # sshd takes its first SetEnv alone, and so this one has to name HOME too.
    clock = f"LD_PRELOAD={library} FAKETIME=+{ahead_s}s FAKETIME_DONT_FAKE_MONOTONIC=1"
    return [f"SetEnv HOME={home} {clock}"]


@contextlib.contextmanager
def ssh_namespaces(
    directory: Path,
    count: int,
    identity: KeyPair | None = None,
    *,
    ahead_s: Mapping[str, int] | None = None,
) -> Iterator[list[NetHost]]:
    """Makes hosts n1, n2, … with an sshd on port 22 of each, all letting the same key in.

    Args:
        directory: for their files.
        count: how many.
        identity: the client's key, made where there is none.
        ahead_s: by how many seconds the clocks of some of them are ahead.
    """
    ahead = ahead_s or {}
    assert find_sshd() is not None
    client = identity or make_key(directory / "client_key")
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(namespaces(count))
        yield [
            NetHost(
                host.name,
                host.namespace,
                host.interface,
                host.address,
                host.gateway,
                stack.enter_context(
                    running_sshd(
                        directory / host.name,
                        name=host.name,
                        addresses=(host.address,),
                        namespace=host.namespace,
                        port=SSH_PORT,
                        identity=client,
                        settings=_clock(directory / host.name / "home", ahead.get(host.name, 0)),
                    )
                ),
            )
            for host in hosts
        ]
