"""Turns what paramiko and the socket layer raise into flowlaunch's errors.

`translate` is total: whatever comes in, one of `launcher.errors` comes out, with the node and
what to do. What it becomes depends on the stage, since the same reset connection means "refused
at the door" before a login and "lost" after it.
"""

from __future__ import annotations

import enum
import errno
import socket

import paramiko
from paramiko.hostkeys import InvalidHostKey
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import (
    ConfigParseError,
    CouldNotCanonicalize,
    IncompatiblePeer,
    NoValidConnectionsError,
    ProxyCommandFailure,
)

from launcher.errors import (
    FlowlaunchError,
    HostKeyError,
    HostKeyMismatch,
    LoginRefused,
    NodeLost,
    NodeUnreachable,
    SshConfigError,
)
from launcher.transport.ssh_target import Target


class Stage(enum.Enum):
    """How far the way to a node's command had come."""

    CONNECT = "connect"
    BANNER = "banner"
    KEY_EXCHANGE = "key exchange"
    LOGIN = "login"
    COMMAND = "command"
    USE = "use"


_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_NO_FILES = {errno.EMFILE, errno.ENFILE}
_BROKEN = (ConnectionResetError, BrokenPipeError, EOFError)


def translate(error: BaseException, target: Target, stage: Stage) -> FlowlaunchError:
    """Returns the error to raise instead of a foreign one."""
    if isinstance(error, FlowlaunchError):
        return error
    if stage is Stage.USE:
        return lost(target.node, said_by(error))
    if isinstance(error, (ConfigParseError, CouldNotCanonicalize)):
        return SshConfigError(
            f"the ssh configuration cannot be followed: {error}",
            node=target.node,
            hint="mend ~/.ssh/config, or give the login under `ssh:` in cluster.yaml",
        )
    if isinstance(error, (paramiko.BadHostKeyException, InvalidHostKey)):
        return _bad_host_key(error, target)
    if isinstance(error, IncompatiblePeer):
        return _no_common_algorithm(error, target)
    if isinstance(error, (paramiko.AuthenticationException, UnknownKeyType)):
        return refused(target, said_by(error))
    if isinstance(error, NoValidConnectionsError):
        return translate(next(iter(error.errors.values())), target, stage)
    if isinstance(error, OSError) and stage in (Stage.CONNECT, Stage.BANNER):
        return _not_reached(error, target, stage)
    return _broken_off(error, target, stage)


def said_by(error: BaseException) -> str:
    """Returns an exception's words, or its name where it has none."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words or type(error).__name__


def lost(node: str, why: str) -> NodeLost:
    """Returns the error for a connection that broke while it was used."""
    return NodeLost(
        f"the SSH connection broke: {why}",
        node=node,
        hint="check the machine and the network; `flowlaunch attach` takes a running job up again",
    )


def refused(target: Target, why: str, hint: str = "") -> LoginRefused:
    """Returns the error for a server that does not let this user in."""
    port = "" if target.port == 22 else f"-p {target.port} "
    copy = f"ssh-copy-id {port}{target.user}@{target.host}"
    return LoginRefused(
        f"{target.where} refuses the login: {why}",
        node=target.node,
        hint=hint or f"check the user and the key, or put your public key there: {copy}",
    )


def _bad_host_key(error: BaseException, target: Target) -> HostKeyError:
    return HostKeyMismatch(
        f"{target.where} shows another host key than the known one: {error}",
        node=target.node,
        hint="find out why before you mend known_hosts",
    )


def _no_common_algorithm(error: BaseException, target: Target) -> NodeUnreachable:
    return NodeUnreachable(
        f"no common algorithm with {target.where}: {said_by(error)}",
        node=target.node,
        hint="its sshd offers only algorithms that are unknown here or no longer thought safe: "
        "look at Ciphers, MACs, KexAlgorithms and HostKeyAlgorithms in its sshd_config",
    )


def _not_reached(error: OSError, target: Target, stage: Stage) -> NodeUnreachable:
    message, hint = _network_words(error, target, stage)
    return NodeUnreachable(message, node=target.node, hint=hint)


def _network_words(error: OSError, target: Target, stage: Stage) -> tuple[str, str]:
    host, port = target.host, target.port
    if isinstance(error, socket.gaierror):
        return (
            f"the name {host} does not resolve: {said_by(error)}",
            "check the spelling, DNS, /etc/hosts and HostName in ~/.ssh/config",
        )
    if isinstance(error, ConnectionRefusedError):
        return (
            f"{host} refuses connections on port {port}",
            "is sshd running there, and on this port? See `ssh: {port: …}` in cluster.yaml",
        )
    if isinstance(error, TimeoutError) and stage is Stage.BANNER:
        return (
            f"{host} accepts the connection on port {port} and then stays silent",
            "something else may listen there, a firewall may hold the answer back, "
            "or the machine is overloaded",
        )
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return (
            f"{host} does not answer on port {port}",
            "is the machine up, and does a firewall let this port through?",
        )
    return _local_words(error, host)


def _local_words(error: OSError, host: str) -> tuple[str, str]:
    if error.errno in _NO_ROUTE:
        return (
            f"no route to {host}: {said_by(error)}",
            "is the machine up, and the network or VPN between here and there?",
        )
    if error.errno in _NO_FILES:
        return (
            f"this machine has no free file descriptor to reach {host} with",
            "raise the limit with `ulimit -n` and start again",
        )
    return f"{host} cannot be reached: {said_by(error)}", "check the network between here and there"


def _broken_off(error: BaseException, target: Target, stage: Stage) -> FlowlaunchError:
    if isinstance(error, paramiko.ChannelException) and stage is Stage.CONNECT:
        return _hop_refuses(error, target)
    if isinstance(error, paramiko.ChannelException):
        return refused(
            target,
            f"logged in, but it opens no session: {error.text or error.code}",
            "look at MaxSessions and ForceCommand in its sshd_config",
        )
    if isinstance(error, ProxyCommandFailure):
        return NodeUnreachable(
            f"the ProxyCommand to {target.host} failed: {error.error}",
            node=target.node,
            hint="try that command by hand",
        )
    if isinstance(error, _BROKEN):
        return NodeUnreachable(
            f"{target.where} hung up at the {stage.value}",
            node=target.node,
            hint="its log (journalctl -u ssh) says why; a filter or fail2ban may be in between",
        )
    return NodeUnreachable(
        f"the {stage.value} with {target.where} failed: {said_by(error)}",
        node=target.node,
        hint=f"compare with: ssh -v -p {target.port} {target.user}@{target.host} true",
    )


def _hop_refuses(error: paramiko.ChannelException, target: Target) -> NodeUnreachable:
    hop = target.hops[-1].where if target.hops else "the jump host"
    return NodeUnreachable(
        f"{hop} does not lead on to {target.host}:{target.port}: {error.text or error.code}",
        node=target.node,
        hint="from there, is that address reachable, and does its sshd allow AllowTcpForwarding?",
    )
