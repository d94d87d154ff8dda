"""The keys to log in with, and the trying of them.

The order is that of a person who says what is meant: the keys that the manifest and the
configuration name, then what the SSH agent holds, then the default files. Each try that fails is
kept with its reason, because "permission denied" alone helps nobody.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH
from paramiko.auth_handler import AuthHandler
from paramiko.pkey import PublicBlob

from launcher.errors import LoginRefused
from launcher.transport.host_keys import fingerprint
from launcher.transport.ssh_errors import refused, said_by
from launcher.transport.ssh_link import Client
from launcher.transport.ssh_target import Target

Prompt = Callable[[str], "str | None"]

_PASSPHRASE_TRIES = 3
_AGENT_LIMIT_S = 10.0
_PUBLIC_ONLY = "public"
_MAGIC = b"openssh-key-v1\0"
_CLASSES: dict[str, type[paramiko.PKey]] = {
    "ssh-ed25519": paramiko.Ed25519Key,
    "ssh-rsa": paramiko.RSAKey,
    "ecdsa-sha2-nistp256": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp384": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp521": paramiko.ECDSAKey,
}


class UnusableKeyError(Exception):
    """A key file that cannot be used. The message says why."""


@dataclass(frozen=True)
class _KeyFile:
    """What a private key file says without its passphrase."""

    key_type: str
    public: bytes


class KeyRing:
    """The private keys and secrets of one launcher, each read or asked for once.

    A hundred threads that need the same passphrase wait for one question. A question's answer
    (or refusal) holds for all nodes.
    """

    def __init__(self, prompt: Prompt | None) -> None:
        self._prompt = prompt
        self._lock = threading.Lock()
        self._keys: dict[Path, paramiko.PKey | UnusableKeyError] = {}
        self._passwords: dict[str, str | None] = {}

    def key(self, path: Path, *, ask: bool) -> paramiko.PKey:
        """Returns the private key of a file.

        Raises:
            UnusableKeyError: it is missing, locked, too open or no key.
        """
        with self._lock:
            if path not in self._keys:
                try:
                    self._keys[path] = self._read(path, ask)
                except UnusableKeyError as why:
                    self._keys[path] = why
            found = self._keys[path]
        if isinstance(found, UnusableKeyError):
            raise UnusableKeyError(str(found))
        return found

    def password(self, target: Target) -> str | None:
        """Returns the password of a user, asked for once for all nodes, or None."""
        with self._lock:
            if target.user not in self._passwords:
                question = f"Password of {target.user} (on {target.host} and the other nodes): "
                self._passwords[target.user] = self._ask(question)
            return self._passwords[target.user]

    def _ask(self, question: str) -> str | None:
        return None if self._prompt is None else self._prompt(question)

    def _read(self, path: Path, ask: bool) -> paramiko.PKey:
        key_type = _peek(path).key_type
        if key_type == _PUBLIC_ONLY:
            raise UnusableKeyError("is a public key, and no SSH agent holds its private one")
        if key_type not in _CLASSES:
            raise UnusableKeyError(f"keys of type {key_type} are not supported here")
        key_class = _CLASSES[key_type]
        try:
            return key_class.from_private_key_file(str(path))
        except paramiko.PasswordRequiredException:
            return self._unlock(path, key_class, ask)
        except (paramiko.SSHException, OSError, ValueError) as error:
            raise UnusableKeyError(f"cannot be read: {said_by(error)}") from None

    def _unlock(self, path: Path, key_class: type[paramiko.PKey], ask: bool) -> paramiko.PKey:
        for _ in range(_PASSPHRASE_TRIES):
            phrase = self._ask(f"Passphrase of {path}: ") if ask else None
            if not phrase:
                raise UnusableKeyError("is encrypted, and nobody gave its passphrase (see ssh-add)")
            try:
                return key_class.from_private_key_file(str(path), phrase)
            except (paramiko.SSHException, ValueError):
                continue
        raise UnusableKeyError(f"the passphrase was wrong {_PASSPHRASE_TRIES} times")


def _peek(path: Path) -> _KeyFile:
    """Reads a key file's type, and its public half where that is not locked away."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        mode = path.stat()
    except OSError as error:
        raise UnusableKeyError(said_by(error)) from None
    if "PRIVATE KEY" not in text:
        return _peek_public(text)
    open_to = stat.S_IMODE(mode.st_mode)
    if mode.st_uid == os.getuid() and open_to & 0o077:
        raise UnusableKeyError(f"others may read it (mode {open_to:04o}): chmod 600 {path}")
    if "BEGIN OPENSSH PRIVATE KEY" in text:
        return _peek_openssh(text)
    for label, key_type in (("RSA", "ssh-rsa"), ("EC", "ecdsa-sha2-nistp256")):
        if f"BEGIN {label} PRIVATE KEY" in text:
            return _KeyFile(key_type, _beside(path))
    raise UnusableKeyError(f"is in a format not supported here; convert: ssh-keygen -p -f {path}")


def _peek_public(text: str) -> _KeyFile:
    """Reads a public key: ssh takes its name for the private one that the agent holds."""
    words = text.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
        key_type = paramiko.Message(blob).get_text()
    except (ValueError, IndexError):
        raise UnusableKeyError("is no private key") from None
    if key_type != words[0]:
        raise UnusableKeyError("is no private key")
    return _KeyFile(_PUBLIC_ONLY, blob)


def _peek_openssh(text: str) -> _KeyFile:
    body = "".join(line for line in text.splitlines() if line and not line.startswith("-----"))
    try:
        data = base64.b64decode(body)
        message = paramiko.Message(data[len(_MAGIC) :])
        for _ in ("cipher", "kdf", "kdf options"):
            message.get_string()
        message.get_int()
        public = message.get_string()
        key_type = paramiko.Message(public).get_text()
    except ValueError as error:
        raise UnusableKeyError(f"is damaged: {error}") from None
    if not data.startswith(_MAGIC) or not key_type:
        raise UnusableKeyError("is damaged")
    return _KeyFile(key_type, public)


def _beside(path: Path) -> bytes:
    """Returns the public key that lies beside an old-style private one, or b""."""
    try:
        words = Path(f"{path}.pub").read_text(encoding="utf-8").split()
        return base64.b64decode(words[1])
    except (OSError, ValueError, IndexError):
        return b""


class _Agent(AgentSSH):
    """The SSH agent at one socket. paramiko's own looks only at SSH_AUTH_SOCK."""

    def __init__(self, path: str) -> None:
        super().__init__()
        conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            conn.settimeout(_AGENT_LIMIT_S)
            conn.connect(path)
            self._connect(conn)  # type: ignore[attr-defined]
        except BaseException:
            conn.close()
            raise

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Candidate:
    label: str
    key: paramiko.PKey


@dataclass
class Login:
    """One attempt to log in to one server.

    Attributes:
        tried: a line for each key that did not open the door.
    """

    target: Target
    ring: KeyRing
    client: Client
    tried: list[str] = field(default_factory=list)
    _offered: int = 0

    def run(self) -> None:
        """Logs in.

        Raises:
            LoginRefused: the message lists every key that was tried, and why it did not do.
        """
        allowed = self._allowed()
        if not allowed or self._by_key(allowed) or self._by_password(allowed):
            return
        raise self._refusal()

    def _by_key(self, allowed: frozenset[str]) -> bool:
        if "publickey" not in allowed:
            self.tried.append(f"keys: the server takes only {', '.join(sorted(allowed))}")
            return False
        with contextlib.ExitStack() as stack:
            return any(self._accepted(one) for one in self._candidates(stack))

    def _candidates(self, stack: contextlib.ExitStack) -> Iterator[_Candidate]:
        held = self._agent_keys(stack)
        if not self.target.identities_are_default:
            yield from self._from_files(held, named=True)
        if not self.target.identities_only:
            for blob in list(held):
                yield held.pop(blob)
        if self.target.identities_are_default:
            yield from self._from_files(held, named=False)

    def _agent_keys(self, stack: contextlib.ExitStack) -> dict[bytes, _Candidate]:
        path = self.target.agent
        if not path:
            return {}
        try:
            agent = stack.enter_context(contextlib.closing(_Agent(path)))
        except (OSError, paramiko.SSHException) as error:
            self.tried.append(f"SSH agent at {path}: {said_by(error)}")
            return {}
        return {
            key.blob: _Candidate(f"agent key {key.comment or key.get_name()}", key)
            for key in agent.get_keys()
        }

    def _from_files(self, held: dict[bytes, _Candidate], *, named: bool) -> Iterator[_Candidate]:
        for path in self.target.identities:
            try:
                public = _peek(path).public
                if public in held:
                    yield held.pop(public)
                    continue
                key = self.ring.key(path, ask=not self.target.batch_mode)
            except UnusableKeyError as why:
                if named or path.exists():
                    self.tried.append(f"{path}: {why}")
                continue
            yield from self._certified(path, key)
            yield _Candidate(str(path), key)

    def _certified(self, path: Path, key: paramiko.PKey) -> Iterator[_Candidate]:
        for cert in (Path(f"{path}-cert.pub"), *self.target.certificates):
            if not cert.is_file():
                continue
            try:
                if not _is_for(PublicBlob.from_file(str(cert)), key):
                    continue
                shown = copy.copy(key)
                shown.load_certificate(str(cert))
            except (ValueError, OSError) as error:
                self.tried.append(f"{cert}: {said_by(error)}")
                continue
            yield _Candidate(str(cert), shown)

    def _accepted(self, candidate: _Candidate) -> bool:
        self._offered += 1
        try:
            more = self.client.authenticate(
                lambda handler, done: handler.auth_publickey(self.target.user, candidate.key, done)
            )
        except paramiko.SSHException as error:
            self._raise_if_gone(error)
            shown = fingerprint(candidate.key.asbytes())
            self.tried.append(f"{candidate.label} ({shown}): {_why(error)}")
            return False
        if more:
            self.tried.append(f"{candidate.label}: accepted, but it also wants {', '.join(more)}")
        return not more

    def _raise_if_gone(self, error: Exception) -> None:
        if self.client.is_active():
            return
        words = self.client.last_words
        if "many authentication failures" in words:
            raise refused(
                self.target,
                f"too many authentication failures: it hung up after {self._offered} keys"
                + self._listed(),
                "name the right key (`ssh: {identity: …}`, or IdentityFile with "
                "`IdentitiesOnly yes` in ~/.ssh/config), so that no other is offered first",
            ) from None
        raise refused(self.target, f"it hung up: {words or said_by(error)}") from None

    def _by_password(self, allowed: frozenset[str]) -> bool:
        if self.target.batch_mode or not allowed & {"password", "keyboard-interactive"}:
            return False
        password = self.ring.password(self.target)
        if password is None:
            return False
        try:
            return not self.client.authenticate(self._offer(password, allowed))
        except paramiko.SSHException as error:
            self._raise_if_gone(error)
            self.tried.append(f"password: {_why(error)}")
            return False

    def _offer(
        self, password: str, allowed: frozenset[str]
    ) -> Callable[[AuthHandler, threading.Event], None]:
        user = self.target.user
        if "password" in allowed:
            return lambda handler, done: handler.auth_password(user, password, done)

        def answers(title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
            return [password] * len(prompts)

        return lambda handler, done: handler.auth_interactive(user, answers, done)

    def _allowed(self) -> frozenset[str]:
        """Returns what the server would take; empty where it wants nothing at all."""
        try:
            self.client.authenticate(
                lambda handler, done: handler.auth_none(self.target.user, done)
            )
        except paramiko.BadAuthenticationType as error:
            return frozenset(error.allowed_types)
        except paramiko.SSHException as error:
            self._raise_if_gone(error)
            raise
        return frozenset()

    def _refusal(self) -> LoginRefused:
        if not self.tried:
            return refused(
                self.target,
                "there is no key to try",
                "make one with ssh-keygen, or name it with `ssh: {identity: …}` in cluster.yaml",
            )
        return refused(self.target, "no key was accepted" + self._listed())

    def _listed(self) -> str:
        return "".join(f"\n  {line}" for line in self.tried)


def _is_for(certificate: PublicBlob, key: paramiko.PKey) -> bool:
    """Says whether a certificate is about a key: it holds the key's numbers, in their order."""
    if not certificate.key_type.startswith(key.get_name()):
        return False
    numbers = key.asbytes()[4 + len(key.get_name()) :]
    return numbers in certificate.key_blob


def _why(error: Exception) -> str:
    words = said_by(error).rstrip(".")
    return "not accepted" if words == "Authentication failed" else words
