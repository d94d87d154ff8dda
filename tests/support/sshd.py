"""OpenSSH's own sshd, on a free port, with keys made at test time."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.keys import KeyPair, make_key
from tests.support.processes import end_tree
from tests.support.servers import SshHost, free_port, introduce, wait_listening

_CLEAN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def find_sshd() -> str | None:
    """Returns sshd's path. None where it is missing, which fails where CI is true."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("sshd is missing: install openssh-server")
    return found


def _config(
    directory: Path, addresses: Sequence[str], port: int, host_keys: Sequence[KeyPair], home: Path
) -> str:
    lines = [
        f"Port {port}",
        *(f"ListenAddress {address}" for address in addresses),
        *(f"HostKey {key.path}" for key in host_keys),
        f"AuthorizedKeysFile {directory}/authorized_keys",
        f"SetEnv HOME={home}",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        "UseDNS no",
        "PrintMotd no",
        "PrintLastLog no",
    ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def running_sshd(
    directory: Path,
    *,
    name: str = "node",
    addresses: Sequence[str] = ("127.0.0.1",),
    namespace: str | None = None,
    port: int | None = None,
    identity: KeyPair | None = None,
    host_keys: Sequence[KeyPair] | None = None,
    settings: Sequence[str] = (),
) -> Iterator[SshHost]:
    """Runs an sshd that lets one key in, and stops it with every session of it.

    Args:
        directory: for its files, and the client's; made where it is missing.
        name: how the client's configuration calls it.
        addresses: what it listens on; the first is the one in the client's configuration.
        namespace: the network namespace to run in.
        identity: the client's key, made where there is none.
        settings: lines of sshd_config that stand above all others.
    """
    program = find_sshd()
    assert program is not None, "ask find_sshd() first"
    home = directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    keys = tuple(host_keys or [make_key(directory / "host_key")])
    client = identity or make_key(directory / "client_key")
    (directory / "authorized_keys").write_text(client.public + "\n")
    chosen = port or free_port(addresses[0] if namespace is None else "127.0.0.1")
    config = directory / "sshd_config"
    text = _config(directory, addresses, chosen, keys, home)
    config.write_text("".join(f"{line}\n" for line in settings) + text)
    host = SshHost(
        name=name,
        address=addresses[0],
        port=chosen,
        user=getpass.getuser(),
        host_key=keys[0],
        identity=client,
        home=home,
        config=directory / "client_config",
        known_hosts=directory / "known_hosts",
        log=directory / "sshd.log",
    )
    introduce(host)
    with _process(program, config, host.log, namespace) as process:
        _wait_started(process, host)
        yield dataclasses.replace(host, pid=process.pid)


@contextlib.contextmanager
def _process(
    program: str, config: Path, log: Path, namespace: str | None
) -> Iterator[subprocess.Popen[bytes]]:
    if os.getuid() == 0:
        # sshd chroots its unprivileged half there; Debian's service makes it at its start.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    entry = ["ip", "netns", "exec", namespace] if namespace else []
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*entry, program, "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=_CLEAN,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end_tree(process.pid)
        process.wait()


@contextlib.contextmanager
def started_again(host: SshHost, namespace: str) -> Iterator[None]:
    """Runs the sshd of a host of a namespace anew, after it was killed."""
    program = find_sshd()
    assert program is not None
    config = host.config.parent / "sshd_config"
    with _process(program, config, host.log, namespace) as process:
        _wait_started(process, host)
        yield


def _wait_started(process: subprocess.Popen[bytes], host: SshHost) -> None:
    try:
        wait_listening(host.address, host.port)
    except AssertionError:
        pytest.fail(f"sshd did not start ({process.poll()}): {host.log.read_text()}")
