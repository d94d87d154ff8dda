"""What every kind of SSH server offers to a test."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from launcher.core.model import NodeSpec, SshSpec, TransportKind
from launcher.transport.ssh import SshTransport
from launcher.transport.ssh_target import SshFiles
from tests.support.deadline import wait_until
from tests.support.keys import KeyPair


@dataclass(frozen=True)
class SshHost:
    """A running SSH server, and files that a client logs in with.

    Attributes:
        home: what HOME is there.
        config: an ssh configuration that names it `name`, with its key and known_hosts.
    """

    name: str
    address: str
    port: int
    user: str
    host_key: KeyPair
    identity: KeyPair
    home: Path
    config: Path
    known_hosts: Path
    log: Path
    pid: int = 0
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def node(self) -> NodeSpec:
        """The node as a manifest would name it: everything else stands in the configuration."""
        return NodeSpec(self.name, self.address, TransportKind.SSH, ssh=SshSpec(self.name))

    @property
    def files(self) -> SshFiles:
        return SshFiles.only(self.config)

    def transport(self) -> SshTransport:
        return SshTransport(self.files)

    @property
    def known_line(self) -> str:
        name = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        return f"{name} {self.host_key.public}\n"


def free_port(address: str = "127.0.0.1") -> int:
    """Returns a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


def config_text(host: SshHost) -> str:
    """Returns the Host block for a server."""
    return (
        f"Host {host.name}\n"
        f"  HostName {host.address}\n  Port {host.port}\n  User {host.user}\n"
        f"  IdentityFile {host.identity.path}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {host.known_hosts}\n"
    )


def introduce(host: SshHost) -> None:
    """Writes the client's files: configuration and known_hosts."""
    host.config.write_text(config_text(host))
    host.config.chmod(0o600)
    host.known_hosts.write_text(host.known_line)


def join_configs(directory: Path, hosts: list[SshHost]) -> Path:
    """Writes one configuration for several servers and returns it."""
    path = directory / "config-of-all"
    path.write_text("".join(config_text(host) for host in hosts))
    path.chmod(0o600)
    return path


def wait_listening(address: str, port: int, limit_s: float = 10.0) -> None:
    """Waits until something accepts connections there."""
    wait_until(lambda: _accepts(address, port), f"a server on {address}:{port}", limit_s)


def _accepts(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True
