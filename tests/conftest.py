"""Fixtures for every test: SSH servers, hosts in namespaces, and the watch for leaks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.asyncssh_server import running_asyncssh
from tests.support.keys import make_key
from tests.support.leaks import nothing_left
from tests.support.netns import NetHost, can_make_namespaces, ssh_namespaces
from tests.support.runtime import oneflow_python
from tests.support.servers import SshHost
from tests.support.sshd import find_sshd, running_sshd

__all__ = ["nothing_left"]


@contextlib.contextmanager
def _server(directory: Path, name: str = "node", **more: object) -> Iterator[SshHost]:
    running = running_sshd if find_sshd() else running_asyncssh
    with running(directory, name=name, **more) as host:  # type: ignore[arg-type]
        yield host


@pytest.fixture(scope="session")
def shared_ssh_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    """One server for all tests that only log in: sshd, or asyncssh where there is none."""
    with _server(tmp_path_factory.mktemp("shared-ssh")) as host:
        yield host


@pytest.fixture
def ssh_host(tmp_path: Path) -> Iterator[SshHost]:
    """A server of the test's own: sshd, or asyncssh where there is none."""
    with _server(tmp_path / "ssh") as host:
        yield host


@pytest.fixture
def ssh_hosts(tmp_path: Path) -> Iterator[Callable[[int], list[SshHost]]]:
    """Makes servers ``node1`` to ``nodeN``, which let the same key in."""
    with contextlib.ExitStack() as stack:

        def make(count: int) -> list[SshHost]:
            identity = make_key(tmp_path / "client_key")
            return [
                stack.enter_context(
                    _server(tmp_path / f"node{number}", f"node{number}", identity=identity)
                )
                for number in range(1, count + 1)
            ]

        yield make


@pytest.fixture
def netns_hosts(tmp_path: Path) -> Iterator[Callable[..., list[NetHost]]]:
    """Makes hosts ``n1`` to ``nN`` in namespaces; skips only where that is impossible locally."""
    if not (find_sshd() and can_make_namespaces()):
        pytest.skip("needs root, iproute2 and sshd (CI has them)")
    with contextlib.ExitStack() as stack:
        yield lambda count, **more: stack.enter_context(
            ssh_namespaces(tmp_path / "net", count, **more)
        )


@pytest.fixture(scope="session")
def runtime_python() -> Path:
    """The interpreter of the OneFlow runtime."""
    return oneflow_python()
