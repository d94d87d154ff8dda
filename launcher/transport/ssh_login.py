"""From a target to a link: dials, checks the host key, logs in; again where sshd was too busy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import paramiko

from launcher.errors import FlowlaunchError, HostKeyMismatch, HostKeyUnknown, NodeUnreachable
from launcher.transport import host_keys
from launcher.transport.host_keys import KnownKey, Verdict, fingerprint
from launcher.transport.ssh_errors import Stage, translate
from launcher.transport.ssh_keys import KeyRing, Login
from launcher.transport.ssh_link import Client, Link
from launcher.transport.ssh_socket import (
    Deadline,
    DroppedError,
    Proxy,
    Turn,
    backoff_s,
    connect,
    wait_banner,
)
from launcher.transport.ssh_target import Target

_SPARE_S = 5.0
_KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


class KnownHosts:
    """The known_hosts files, each read once a version, and written by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[Path, tuple[object, tuple[KnownKey, ...]]] = {}

    def about(self, target: Target) -> tuple[KnownKey, ...]:
        """Returns what is known of a server, under its name with the port, else without it.

        Raises:
            OSError: a file is there and cannot be read.
        """
        entries = [
            entry
            for path in (*target.known_hosts, *target.global_known_hosts)
            for entry in self._read(path)
        ]
        return host_keys.entries_for(entries, _name(target))

    def is_known_without_port(self, target: Target, blob: bytes) -> bool:
        """Says whether the key is known for the machine's default port, as ssh accepts it."""
        if target.is_alias_name or target.port == host_keys.DEFAULT_PORT:
            return False
        paths = (*target.known_hosts, *target.global_known_hosts)
        entries = [entry for path in paths for entry in self._read(path)]
        found = host_keys.entries_for(entries, target.known_name)
        return host_keys.judge(found, blob)[0] is Verdict.KNOWN

    def add(self, target: Target, key_type: str, blob: bytes) -> None:
        """Records a key for a server.

        Raises:
            OSError: the file cannot be written.
        """
        line = host_keys.known_line(_name(target), key_type, blob, hashed=target.hash_known_hosts)
        with self._lock:
            host_keys.record(target.known_hosts[0], line)

    def _read(self, path: Path) -> tuple[KnownKey, ...]:
        with self._lock:
            version = _version(path)
            if path not in self._files or self._files[path][0] != version:
                self._files[path] = version, tuple(host_keys.read_known_hosts(path))
            return self._files[path][1]


def _version(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _name(target: Target) -> str:
    if target.is_alias_name:
        return target.known_name
    return host_keys.entry_name(target.known_name, target.port)


def _route(hop: Target) -> Target:
    """Returns what a hop is for every node behind it: its target without the node's name."""
    return replace(hop, node="", hops=tuple(_route(before) for before in hop.hops))


def key_types_for(entries: Sequence[KnownKey], pinned: str | None) -> tuple[str, ...]:
    """Returns the host key types to ask a server for, those that are known of it first."""
    plain = [entry for entry in entries if entry.marker != host_keys.REVOKED]
    plain.sort(key=lambda entry: fingerprint(entry.blob) != pinned)
    first = [name for entry in plain for name in _KEY_TYPES if _family(name) == entry.key_type]
    return tuple(dict.fromkeys([*first, *_KEY_TYPES]))


def _family(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-") else algorithm


@dataclass
class Dialer:
    """What all the logins of one transport share.

    Attributes:
        places: bounds the logins under way at once.
        closing: set when no more logins are wanted.
    """

    ring: KeyRing
    places: threading.Semaphore
    closing: threading.Event = field(default_factory=threading.Event)
    known: KnownHosts = field(default_factory=KnownHosts)
    _hops: dict[Target, Link] = field(default_factory=dict)
    _hop_locks: dict[Target, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def dial(self, target: Target, timeout_s: float) -> Link:
        """Returns a logged-in link. The timeout counts from when its turn has come.

        Raises:
            FlowlaunchError: one of its kinds says why there is none.
        """
        via = self._hop_for(target, timeout_s)
        with Turn(self.places) as turn:
            deadline = Deadline.after(timeout_s)
            for attempt in range(1_000_000):
                try:
                    return self._once(target, via, deadline, turn)
                except DroppedError as why:
                    wait_s = backoff_s(attempt)
                    if wait_s > deadline.left_s:
                        raise _always_dropped(target, why, attempt + 1) from None
                with turn.aside():
                    if self.closing.wait(wait_s):
                        raise _closing(target)
        raise AssertionError("the deadline ends the loop")

    def close(self) -> None:
        """Ends the jump hosts' links, and the waiting of every login."""
        self.closing.set()
        with self._lock:
            hops, self._hops = list(self._hops.values()), {}
        for link in hops:
            link.close()

    def _hop_for(self, target: Target, timeout_s: float) -> Link | None:
        """Returns the link to the last jump host, one for all the nodes behind it."""
        if not target.hops:
            return None
        hop = target.hops[-1]
        route = _route(hop)
        with self._lock:
            lock = self._hop_locks.setdefault(route, threading.Lock())
        with lock:
            link = self._hops.get(route)
            if link is None or not link.is_alive:
                link = self.dial(hop, timeout_s)
                with self._lock:
                    self._hops[route] = link
        return link

    def _once(self, target: Target, via: Link | None, deadline: Deadline, turn: Turn) -> Link:
        if self.closing.is_set():
            raise _closing(target)
        types = key_types_for(self._about(target), target.pinned)
        shown: paramiko.PKey | None = None
        while True:
            try:
                link = self._shake_hands(target, via, types, deadline, turn)
            except NodeUnreachable:
                if shown is None:
                    raise
                # It has no key of the types that were left to ask for.
                raise _not_the_pinned(target, shown) from None
            with _closed_on_error(link):
                shown = link.client.get_remote_server_key()
                # Only the server knows which of its keys a pinned fingerprint is of: ask for the
                # other types before calling it changed.
                types = tuple(name for name in types if _family(name) != shown.get_name())
                if not self._may_try_next(target, shown, types):
                    self._check(target, shown)
                    self._log_in(link, target, deadline)
                    return link
            link.close()

    @staticmethod
    def _may_try_next(target: Target, shown: paramiko.PKey, left: Sequence[str]) -> bool:
        return bool(left) and target.pinned not in (None, fingerprint(shown.asbytes()))

    def _shake_hands(
        self,
        target: Target,
        via: Link | None,
        types: Sequence[str],
        deadline: Deadline,
        turn: Turn,
    ) -> Link:
        link = self._reach(target, via, types, deadline.sooner(target.connect_timeout_s), turn)
        with _closed_on_error(link):
            try:
                # start_client's own time is to run out first: it can say what happened.
                link.client.handshake_timeout = deadline.left_s + _SPARE_S
                link.client.banner_timeout = deadline.left_s
                link.client.start_client(timeout=deadline.left_s)
                if not link.client.initial_kex_done:
                    raise TimeoutError("it stopped answering")
            except Exception as error:
                # paramiko passes on whatever its thread met; `translate` is total.
                raise translate(error, target, Stage.KEY_EXCHANGE) from None
        return link

    def _reach(
        self,
        target: Target,
        via: Link | None,
        types: Sequence[str],
        deadline: Deadline,
        turn: Turn,
    ) -> Link:
        if via is not None:
            return self._through(via, target, types, deadline)
        if target.proxy_command is not None:
            return self._by_proxy(target.proxy_command, target, types, deadline, turn)
        stage = Stage.CONNECT
        try:
            sock = connect(target, deadline, turn)
            stage = Stage.BANNER
            with _closed_on_error(sock):
                wait_banner(sock, target, deadline, turn)
        except OSError as error:
            raise translate(error, target, stage) from None
        return Link(target, Client(sock, types), sock)

    @staticmethod
    def _through(via: Link, target: Target, types: Sequence[str], deadline: Deadline) -> Link:
        try:
            channel = via.stream_to(target.host, target.port, deadline.left_s)
        except Exception as error:
            raise translate(error, target, Stage.CONNECT) from None
        return Link(target, Client(channel, types), channel)

    @staticmethod
    def _by_proxy(
        command: str, target: Target, types: Sequence[str], deadline: Deadline, turn: Turn
    ) -> Link:
        proxy = Proxy(command)
        with _closed_on_error(proxy):
            try:
                wait_banner(proxy.sock, target, deadline, turn)
            except DroppedError:
                raise _proxy_failed(target, proxy.last_words()) from None
            except OSError as error:
                raise translate(error, target, Stage.BANNER) from None
            return Link(target, Client(proxy.sock, types), proxy.sock, proxy)

    def _about(self, target: Target) -> tuple[KnownKey, ...]:
        try:
            return self.known.about(target)
        except OSError as error:
            raise HostKeyUnknown(
                f"known_hosts cannot be read: {error}",
                node=target.node,
                hint="mend that file's permissions",
            ) from None

    def _check(self, target: Target, key: paramiko.PKey) -> None:
        blob = key.asbytes()
        if target.pinned is not None:
            if fingerprint(blob) != target.pinned:
                raise _not_the_pinned(target, key)
            return
        verdict, entries = host_keys.judge(self._about(target), blob)
        if verdict is Verdict.UNKNOWN and self.known.is_known_without_port(target, blob):
            return
        if verdict is Verdict.UNKNOWN and target.strict != "yes":
            self._record(target, key)
        elif verdict is Verdict.UNKNOWN:
            raise _unknown(target, key)
        elif verdict is not Verdict.KNOWN:
            raise _wrong(target, key, verdict, entries)

    def _record(self, target: Target, key: paramiko.PKey) -> None:
        try:
            self.known.add(target, key.get_name(), key.asbytes())
        except OSError as error:
            raise HostKeyUnknown(
                f"the new host key of {target.where} cannot be recorded: {error}",
                node=target.node,
                hint="make that file writable, or pin the key with `ssh: {host_key: …}`",
            ) from None

    def _log_in(self, link: Link, target: Target, deadline: Deadline) -> None:
        link.client.auth_timeout = max(1.0, deadline.left_s)
        try:
            Login(target, self.ring, link.client).run()
        except Exception as error:
            raise translate(error, target, Stage.LOGIN) from None


class _Closable(Protocol):
    def close(self) -> None: ...


@contextlib.contextmanager
def _closed_on_error(thing: _Closable) -> Iterator[None]:
    try:
        yield
    except BaseException:
        thing.close()
        raise


def _unknown(target: Target, key: paramiko.PKey) -> HostKeyUnknown:
    name, shown = _name(target), fingerprint(key.asbytes())
    port = "" if target.port == host_keys.DEFAULT_PORT else f"-p {target.port} "
    return HostKeyUnknown(
        f"the host key of {name} is not known: it shows {key.get_name()} {shown}",
        node=target.node,
        hint="compare that fingerprint with the machine's own (ssh-keygen -lf "
        "/etc/ssh/ssh_host_ed25519_key.pub there); then log in once by hand "
        f"(ssh {port}{target.user}@{target.host}), "
        'or write `ssh: {host_key: "' + shown + '"}`, or `ssh: {accept_new: true}`',
    )


def _wrong(
    target: Target, key: paramiko.PKey, verdict: Verdict, entries: Sequence[KnownKey]
) -> HostKeyMismatch:
    shown = f"{key.get_name()} {fingerprint(key.asbytes())}"
    at = entries[0]
    if verdict is Verdict.REVOKED:
        return HostKeyMismatch(
            f"the host key of {_name(target)} is revoked in {at.where}: it shows {shown}",
            node=target.node,
            hint="that key is known to be in wrong hands: ask who runs the machine for a new one",
        )
    listed = ", ".join(f"{one.key_type} {fingerprint(one.blob)} ({one.where})" for one in entries)
    return HostKeyMismatch(
        f"the host key of {_name(target)} has CHANGED: it shows {shown}, known is {listed}",
        node=target.node,
        hint="someone may stand in between, or the machine was installed anew. Compare the "
        f"fingerprint there; if it is right: ssh-keygen -R '{_name(target)}' "
        f"-f {at.where.rpartition(':')[0]}",
    )


def _not_the_pinned(target: Target, key: paramiko.PKey) -> HostKeyMismatch:
    return HostKeyMismatch(
        f"{target.where} shows {key.get_name()} {fingerprint(key.asbytes())}, "
        f"pinned in the manifest is {target.pinned}",
        node=target.node,
        hint="compare the fingerprint on the machine, then mend `ssh: {host_key: …}`",
    )


def _proxy_failed(target: Target, words: str) -> NodeUnreachable:
    said = f": {words}" if words else " and said nothing"
    return NodeUnreachable(
        f"the ProxyCommand to {target.host} ended without a connection{said}",
        node=target.node,
        hint=f"try it by hand: {target.proxy_command}",
    )


def _always_dropped(target: Target, why: DroppedError, attempts: int) -> NodeUnreachable:
    return NodeUnreachable(
        f"{target.where} hung up before the login, {attempts} times: {why}",
        node=target.node,
        hint="its sshd has too many logins under way (MaxStartups), or shuts this address out",
    )


def _closing(target: Target) -> FlowlaunchError:
    return NodeUnreachable("the login was given up: flowlaunch is stopping", node=target.node)
