"""What to dial for a node: the manifest's words above those of ssh's configuration.

A `Target` is everything that one login needs, with every token expanded and every default put
in, as ``ssh -G`` would print it.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

from launcher.core.model import SshSpec
from launcher.errors import SshConfigError
from launcher.transport.ssh_config import (
    SYSTEM_CONFIG,
    USER_CONFIG,
    ConfigFile,
    ConfigLineError,
    Options,
    expand,
    local_user,
    read_options,
)

_DEFAULT_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_MAX_HOPS = 8
_HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:/]+)(?::(?P<port>\d+))?/?$"
)


@dataclass(frozen=True)
class SshFiles:
    """Which files say how to log in.

    Attributes:
        config: read first to last; the first value of an option wins.
        known_hosts: instead of those that the configuration or ssh's defaults name, or None.
    """

    config: tuple[ConfigFile, ...]
    known_hosts: tuple[Path, ...] | None = None

    @classmethod
    def of_person(cls) -> SshFiles:
        """Returns the files that ssh itself reads."""
        user = ConfigFile(USER_CONFIG.expanduser(), is_user=True)
        return cls((user, ConfigFile(SYSTEM_CONFIG, is_user=False)))

    @classmethod
    def only(cls, config: Path, known_hosts: Sequence[Path] | None = None) -> SshFiles:
        """Returns one configuration alone, as ``ssh -F`` takes it."""
        chosen = None if known_hosts is None else tuple(known_hosts)
        return cls((ConfigFile(config, is_user=True),), chosen)


@dataclass(frozen=True)
class Target:
    """One server and the way to log in to it.

    Attributes:
        node: the node's name, for messages.
        alias: what the configuration was asked for.
        host: what is dialled.
        identities: key files in the order of trial; `identities_are_default` where nobody named
            them, so that a missing one is no news.
        certificates: for the keys, beside those that lie next to them.
        agent: the agent's socket, or None for no agent.
        hops: the servers to go through, nearest first.
        proxy_command: what to talk through instead of a socket, or None.
        known_hosts: the person's files, where new keys are recorded in the first, then the
            machine's.
        known_name: what known_hosts is asked for, without a port.
        strict: "yes", "accept-new" or "no".
        connect_timeout_s: the configuration's bound on TCP and banner, or None.
    """

    node: str
    alias: str
    host: str
    port: int
    user: str
    identities: tuple[Path, ...]
    identities_are_default: bool
    identities_only: bool
    certificates: tuple[Path, ...]
    agent: str | None
    hops: tuple[Target, ...]
    proxy_command: str | None
    known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    known_name: str
    is_alias_name: bool
    hash_known_hosts: bool
    strict: str
    pinned: str | None
    connect_timeout_s: float | None
    batch_mode: bool
    family: socket.AddressFamily

    @property
    def where(self) -> str:
        """Says the server as a person writes it: ``user@host``, with the port where it is odd."""
        at = f"{self.user}@{self.host}"
        return at if self.port == 22 else f"{at}:{self.port}"


def target_of(node: str, spec: SshSpec, files: SshFiles) -> Target:
    """Returns what to dial for a node.

    Raises:
        SshConfigError: the configuration cannot be followed as OpenSSH would.
    """
    try:
        return _target(node, spec, files, depth=0)
    except ConfigLineError as problem:
        raise SshConfigError(
            f"the ssh configuration of {spec.host} cannot be followed: {problem}",
            node=node,
            hint="mend that line, or give the node's login under `ssh:` in cluster.yaml",
        ) from None


def _given(spec: SshSpec) -> dict[str, tuple[str, ...]]:
    given: dict[str, tuple[str, ...]] = {}
    if spec.port is not None:
        given["port"] = (str(spec.port),)
    if spec.user is not None:
        given["user"] = (spec.user,)
    if spec.identity is not None:
        given["identityfile"] = (spec.identity,)
    if spec.jump is not None:
        given["proxyjump"] = (spec.jump,)
    return given


def _target(node: str, spec: SshSpec, files: SshFiles, depth: int) -> Target:
    options = read_options(files.config, spec.host, _given(spec))
    _refuse_unsupported(options)
    reader = _Reader(spec.host, options)
    identities = reader.paths("identityfile", _DEFAULT_KEYS)
    alias_name = reader.text("hostkeyalias")
    return Target(
        node=node,
        alias=spec.host,
        host=reader.hostname,
        port=reader.port,
        user=reader.user,
        identities=identities,
        identities_are_default="identityfile" not in options,
        identities_only=reader.yes("identitiesonly"),
        certificates=reader.paths("certificatefile", ()),
        agent=reader.agent(),
        hops=_hops(node, reader, files, depth),
        proxy_command=reader.proxy_command(),
        known_hosts=files.known_hosts or reader.paths("userknownhostsfile", _USER_KNOWN_HOSTS),
        global_known_hosts=()
        if files.known_hosts
        else reader.paths("globalknownhostsfile", _GLOBAL_KNOWN_HOSTS),
        known_name=(alias_name or reader.hostname).lower(),
        is_alias_name=alias_name is not None,
        hash_known_hosts=reader.yes("hashknownhosts"),
        strict="accept-new" if spec.accept_new else reader.strict(),
        pinned=spec.host_key,
        connect_timeout_s=reader.timeout(),
        batch_mode=reader.yes("batchmode"),
        family=reader.family(),
    )


def _refuse_unsupported(options: Options) -> None:
    if options.get("canonicalizehostname", ("no",))[0].lower() in ("yes", "always"):
        raise ConfigLineError("CanonicalizeHostname is not supported here; write HostName instead")


def _hops(node: str, reader: _Reader, files: SshFiles, depth: int) -> tuple[Target, ...]:
    jump = reader.text("proxyjump")
    if jump is None:
        return ()
    if depth >= _MAX_HOPS:
        raise ConfigLineError(f"ProxyJump {jump}: the jump hosts lead in a circle")
    names = [name.strip() for name in reader.expanded(jump, "ProxyJump").split(",")]
    # As `ssh -J a,b` does it: b is reached through a whatever b's own ProxyJump says, and a
    # through whatever is configured for a.
    *before, last = names
    spec = _hop_spec(last, ",".join(before) or None)
    hop = _target(node, spec, files, depth + 1)
    return (*hop.hops, hop)


def _hop_spec(text: str, jump: str | None) -> SshSpec:
    match = _HOP.match(text)
    if match is None:
        raise ConfigLineError(f"ProxyJump {text}: expected [user@]host[:port]")
    port = match["port"]
    host = match["host"].strip("[]")
    return SshSpec(host, port=int(port) if port else None, user=match["user"], jump=jump)


@dataclass(frozen=True)
class _Reader:
    """Gives raw options their types, defaults and tokens."""

    alias: str
    options: Options

    @property
    def hostname(self) -> str:
        return self.options["hostname"][0]

    @property
    def user(self) -> str:
        return self.options.get("user", (local_user(),))[0]

    @property
    def port(self) -> int:
        text = self.options.get("port", ("22",))[0]
        try:
            port = int(text)
        except ValueError:
            port = socket.getservbyname(text, "tcp") if text.isalpha() else 0
        if not 0 < port < 65536:
            raise ConfigLineError(f"Port {text}: expected 1 to 65535")
        return port

    def text(self, key: str) -> str | None:
        value = self.options.get(key, ("none",))[0]
        return None if value.lower() == "none" else value

    def yes(self, key: str) -> bool:
        return self.options.get(key, ("no",))[0].lower() in ("yes", "true")

    def strict(self) -> str:
        value = self.options.get("stricthostkeychecking", ("ask",))[0].lower()
        # ssh would ask a person about an unknown key; a launcher of many nodes asks nobody.
        return {"no": "no", "off": "no", "accept-new": "accept-new"}.get(value, "yes")

    def timeout(self) -> float | None:
        text = self.text("connecttimeout")
        if text is None:
            return None
        if not text.isdigit():
            raise ConfigLineError(f"ConnectTimeout {text}: expected seconds")
        return float(text) or None

    def family(self) -> socket.AddressFamily:
        value = self.options.get("addressfamily", ("any",))[0].lower()
        families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
        return families.get(value, socket.AF_UNSPEC)

    def tokens(self) -> Mapping[str, str]:
        full = socket.gethostname()
        hashed = full + self.hostname + str(self.port) + self.user
        return {
            "C": sha1(hashed.encode(), usedforsecurity=False).hexdigest(),
            "d": str(Path.home()),
            "h": self.hostname,
            "i": str(os.getuid()),
            "k": self.text("hostkeyalias") or self.alias,
            "L": full.split(".")[0],
            "l": full,
            "n": self.alias,
            "p": str(self.port),
            "r": self.user,
            "u": local_user(),
        }

    def expanded(self, text: str, key: str) -> str:
        try:
            return expand(text, self.tokens())
        except ValueError as error:
            raise ConfigLineError(f"{key} {text}: {error}") from None

    def paths(self, key: str, default: tuple[str, ...]) -> tuple[Path, ...]:
        names = self.options.get(key, default)
        return tuple(self._path(name, key) for name in names if name.lower() != "none")

    def _path(self, name: str, key: str) -> Path:
        filled = re.sub(r"\$\{(\w+)\}", lambda match: self._variable(match[1], key), name)
        return Path(self.expanded(filled, key)).expanduser()

    @staticmethod
    def _variable(name: str, key: str) -> str:
        if name not in os.environ:
            raise ConfigLineError(f"{key}: the environment variable {name} is not set")
        return os.environ[name]

    def agent(self) -> str | None:
        """Returns the agent's socket: IdentityAgent as ssh reads it, else SSH_AUTH_SOCK."""
        value = self.options.get("identityagent", ("SSH_AUTH_SOCK",))[0]
        if value.lower() == "none":
            return None
        if value == "SSH_AUTH_SOCK":
            return os.environ.get("SSH_AUTH_SOCK")
        if value.startswith("$") and not value.startswith("${"):
            return os.environ.get(value[1:])
        return str(self._path(value, "IdentityAgent"))

    def proxy_command(self) -> str | None:
        command = self.text("proxycommand")
        return None if command is None else self.expanded(command, "ProxyCommand")
