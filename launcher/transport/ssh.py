"""The SSH transport: one connection a node, one command on it.

paramiko costs a fifth of a second to import, so it is imported where the first node is dialled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from launcher.core.model import NodeSpec, SshSpec
from launcher.errors import NodeUnreachable
from launcher.transport.ssh_target import SshFiles, target_of

if TYPE_CHECKING:
    from launcher.transport.ssh_link import SshConnection
    from launcher.transport.ssh_login import Dialer

LOGINS_AT_ONCE = 16


class SshTransport:
    """Logs in to nodes (see `launcher.transport.base.Transport`); `open` may be called by many.

    Args:
        files: which configuration and known_hosts to go by; None is what ssh itself reads.
        prompt: asks the person for a passphrase or password and returns it, or None where they
            give none; itself None where there is nobody to ask.
        logins_at_once: how many logins may be under way; a waiting one's time does not run.
    """

    def __init__(
        self,
        files: SshFiles | None = None,
        *,
        prompt: Callable[[str], str | None] | None = None,
        logins_at_once: int = LOGINS_AT_ONCE,
    ) -> None:
        self._files = files or SshFiles.of_person()
        self._prompt = prompt
        self._places = threading.BoundedSemaphore(logins_at_once)
        self._lock = threading.Lock()
        self._dialer: Dialer | None = None
        self._open: set[SshConnection] = set()
        self._asked_for = 0
        self._closed = False

    def open(self, node: NodeSpec, argv: Sequence[str], *, timeout_s: float) -> SshConnection:
        """Logs in to the node and runs `argv` there, its words as they are.

        Raises:
            NodeError: one of its kinds says why there is no connection.
        """
        from launcher.transport.ssh_link import SshConnection, run_command, window_bytes

        target = target_of(node.name, node.ssh or SshSpec(node.addr), self._files)
        with self._lock:
            self._asked_for += 1
        try:
            link = self._dial_with().dial(target, timeout_s)
            # By then, whoever dials many nodes at once has asked for all of them.
            window = window_bytes(len(self._open) + self._asked_for)
            try:
                channel = run_command(link, argv, timeout_s, window)
                connection = SshConnection(link, channel, self._forget)
                self._keep(connection, node.name)
            except BaseException:
                link.close()
                raise
        finally:
            with self._lock:
                self._asked_for -= 1
        return connection

    def close(self) -> None:
        """Ends every connection and thread that it made."""
        with self._lock:
            self._closed = True
            connections, dialer = list(self._open), self._dialer
        if dialer is not None:
            dialer.closing.set()
        for connection in connections:
            connection.close()
        if dialer is not None:
            dialer.close()

    def _dial_with(self) -> Dialer:
        from launcher.transport.ssh_keys import KeyRing
        from launcher.transport.ssh_login import Dialer

        with self._lock:
            if self._dialer is None:
                self._dialer = Dialer(KeyRing(self._prompt), self._places)
            return self._dialer

    def _keep(self, connection: SshConnection, node: str) -> None:
        with self._lock:
            if self._closed:
                raise NodeUnreachable("flowlaunch is stopping", node=node)
            self._open.add(connection)

    def _forget(self, connection: SshConnection) -> None:
        with self._lock:
            self._open.discard(connection)
