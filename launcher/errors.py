"""The error tree.

    FlowlaunchError
    ├── UsageError              64  the command line
    ├── ManifestError           65  the manifest: every problem at once
    ├── NodeError               69  a node cannot be used
    │   ├── NodeUnreachable         no connection: name, route, refusal, silence
    │   ├── LoginRefused            the server answered and said no
    │   ├── HostKeyError            the server is not known to be the one meant
    │   │   ├── HostKeyUnknown
    │   │   └── HostKeyMismatch
    │   ├── SshConfigError          a configuration that cannot be followed as OpenSSH would
    │   ├── NodeLost                the connection broke while it was used
    │   ├── NodeNotReady            logged in, but python, runtime, disk or port is missing
    │   └── ProtocolError           the far side does not speak as an agent does
    ├── DeliveryError           74  the job ended well; a log or checkpoint is not whole here
    └── StoreError              74  this machine's own disk or files

An error's message says what happened, `where` in which file or on which node, and `hint` what to
do about it. No exception of a foreign library leaves the room that uses it.
"""

from __future__ import annotations

EXIT_USAGE = 64
EXIT_MANIFEST = 65
EXIT_NODE = 69
EXIT_DELIVERY = 74
EXIT_TIMEOUT = 124
EXIT_INTERRUPTED = 130


class FlowlaunchError(Exception):
    """Everything that flowlaunch reports instead of a traceback.

    Attributes:
        message: what happened, one sentence without a final stop.
        where: the file, line or node, or "".
        hint: what to do about it, or "".
        exit_code: what the command ends with.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(FlowlaunchError):
    """The command line asks for something that there is not."""

    exit_code = EXIT_USAGE


class ManifestError(FlowlaunchError):
    """The manifest is wrong. `problems` holds a located line for each thing that is."""

    exit_code = EXIT_MANIFEST

    def __init__(self, problems: list[str], *, hint: str = "") -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = problems


class NodeError(FlowlaunchError):
    """A node cannot be used."""

    exit_code = EXIT_NODE

    def __init__(self, message: str, *, node: str, hint: str = "") -> None:
        super().__init__(message, where=node, hint=hint)
        self.node = node


class NodeUnreachable(NodeError):
    """No connection came about."""


class LoginRefused(NodeError):
    """The server does not let this user in with what was tried."""


class HostKeyError(NodeError):
    """The server's host key does not prove that it is the machine meant."""


class HostKeyUnknown(HostKeyError):
    """No known_hosts file names this server."""


class HostKeyMismatch(HostKeyError):
    """A known_hosts file or the manifest names this server with another key."""


class SshConfigError(NodeError):
    """An ssh configuration says something that flowlaunch cannot do as OpenSSH does it."""


class NodeLost(NodeError):
    """The connection broke while it was used."""


class NodeNotReady(NodeError):
    """Login works, but something that a run needs is not there."""


class ProtocolError(NodeError):
    """The far side does not speak as an agent does."""


class DeliveryError(FlowlaunchError):
    """A log or a checkpoint could not be brought here whole."""

    exit_code = EXIT_DELIVERY


class StoreError(FlowlaunchError):
    """A file or directory of this machine cannot be read or written."""

    exit_code = EXIT_DELIVERY
