"""Every exception class of paramiko, at every stage, becomes one of ours."""

from __future__ import annotations

import errno
import importlib
import inspect
import pkgutil
import socket
import subprocess
import sys

import paramiko
import pytest
from paramiko.ssh_exception import NoValidConnectionsError

from launcher.core.model import SshSpec
from launcher.errors import FlowlaunchError, NodeError, NodeLost, NodeUnreachable
from launcher.transport.ssh_errors import Stage, translate
from launcher.transport.ssh_target import SshFiles, target_of

TARGET = target_of("n7", SshSpec("host.example", user="u"), SshFiles((), ()))
KEY = paramiko.Ed25519Key.from_type_string(
    "ssh-ed25519", b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))
)


def foreign_classes() -> list[type[BaseException]]:
    found: set[type[BaseException]] = set()
    for module in pkgutil.iter_modules(paramiko.__path__, "paramiko."):
        if "win" in module.name:
            continue
        for _, item in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(item, BaseException) and item.__module__.startswith("paramiko"):
                found.add(item)
    return sorted(found, key=lambda item: item.__qualname__)


ARGUMENTS: dict[str, tuple[object, ...]] = {
    "BadAuthenticationType": ("not allowed", ["password"]),
    "BadHostKeyException": ("host", KEY, KEY),
    "ChannelException": (2, "Connect failed"),
    "InvalidHostKey": ("line", ValueError("bad")),
    "NoValidConnectionsError": ({("10.0.0.1", 22): ConnectionRefusedError(111, "refused")},),
    "PartialAuthentication": (["password"],),
    "ProxyCommandFailure": ("nc", "Broken pipe"),
    "UnknownKeyType": ("odd", b"blob"),
}


def made(kind: type[BaseException]) -> BaseException:
    if kind.__name__ == "AuthFailure":
        from paramiko.auth_strategy import AuthResult, AuthStrategy

        return kind(AuthResult(AuthStrategy(None)))  # type: ignore[arg-type]
    return kind(*ARGUMENTS.get(kind.__name__, ("what went wrong",)))


def test_the_walk_finds_the_classes() -> None:
    names = {kind.__name__ for kind in foreign_classes()}
    assert {"SSHException", "ChannelException", "MessageOrderError", "UnknownKeyType"} <= names
    assert len(names) >= 20


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("kind", foreign_classes())
def test_every_class_at_every_stage(kind: type[BaseException], stage: Stage) -> None:
    error = translate(made(kind), TARGET, stage)
    assert isinstance(error, NodeError)
    assert error.node == "n7"
    assert error.message
    assert error.hint
    assert isinstance(error, NodeLost) == (stage is Stage.USE)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "does not resolve"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "refuses connections"),
        (TimeoutError(), "does not answer"),
        (OSError(errno.ETIMEDOUT, "timed out"), "does not answer"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no route"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "no route"),
        (OSError(errno.EMFILE, "Too many open files"), "file descriptor"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "cannot be reached"),
        (NoValidConnectionsError({("h", 22): TimeoutError()}), "does not answer"),
    ],
)
def test_what_the_socket_layer_says(error: OSError, words: str) -> None:
    ours = translate(error, TARGET, Stage.CONNECT)
    assert type(ours) is NodeUnreachable
    assert words in ours.message
    assert "host.example" in ours.message


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError(), EOFError()])
@pytest.mark.parametrize("stage", list(Stage))
def test_anything_else_is_translated_too(error: Exception, stage: Stage) -> None:
    assert isinstance(translate(error, TARGET, stage), NodeError)


def test_our_own_errors_pass_through() -> None:
    own = FlowlaunchError("as it is")
    assert translate(own, TARGET, Stage.LOGIN) is own


def test_paramiko_is_imported_only_when_a_node_is_dialled() -> None:
    code = (
        "import sys, launcher.transport.ssh as ssh, launcher.transport.addresses\n"
        "ssh.SshTransport().close()\n"
        "sys.exit('paramiko' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
