"""asyncssh's server in a process of its own: SSH from other hands, without root or sshd.

Run as a program, it takes one JSON argument and prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import getpass
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.keys import KeyPair, make_key
from tests.support.processes import end_tree
from tests.support.servers import SshHost, introduce

_ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def running_asyncssh(
    directory: Path,
    *,
    name: str = "node",
    address: str = "127.0.0.1",
    identity: KeyPair | None = None,
    password: str = "",
) -> Iterator[SshHost]:
    """Runs the server, which lets one key in, or a password; else like `running_sshd`."""
    home = directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    host_key, client = (
        make_key(directory / "host_key"),
        identity or make_key(directory / "client_key"),
    )
    (directory / "authorized_keys").write_text(client.public + "\n")
    order = {
        "address": address,
        "host_key": str(host_key.path),
        "authorized": str(directory / "authorized_keys"),
        "home": str(home),
        "password": password,
    }
    log = directory / "asyncssh.log"
    with log.open("wb") as sink, _process(order, sink) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        host = SshHost(
            name=name,
            address=address,
            port=int(line),
            user=getpass.getuser(),
            host_key=host_key,
            identity=client,
            home=home,
            config=directory / "client_config",
            known_hosts=directory / "known_hosts",
            log=log,
        )
        introduce(host)
        yield dataclasses.replace(host, pid=process.pid)


@contextlib.contextmanager
def _process(order: dict[str, str], sink: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.asyncssh_server", json.dumps(order)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=sink,
        cwd=_ROOT,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            end_tree(process.pid)


async def _pump(source: Any, sink: Any) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


async def _feed(source: Any, sink: Any) -> None:
    try:
        await _pump(source, sink)
    finally:
        sink.close()


async def _serve(order: dict[str, str]) -> None:
    import asyncssh

    async def handle(process: Any) -> None:
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            process.command or "",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "HOME": order["home"]},
        )
        feeding = asyncio.create_task(_feed(process.stdin, child.stdin))
        # asyncssh's own redirection may end the session before the last of stderr has gone out.
        await asyncio.gather(
            _pump(child.stdout, process.stdout), _pump(child.stderr, process.stderr)
        )
        status = await child.wait()
        feeding.cancel()
        if status < 0:
            process.channel.exit_with_signal("KILL")
        else:
            process.exit(status)

    class Doorkeeper(asyncssh.SSHServer):  # type: ignore[misc]
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return bool(order["password"])

        def validate_password(self, username: str, password: str) -> bool:
            return password == order["password"]

    server = await asyncssh.listen(
        order["address"],
        0,
        server_host_keys=[order["host_key"]],
        authorized_client_keys=order["authorized"],
        server_factory=Doorkeeper,
        process_factory=handle,
        encoding=None,
        allow_scp=False,
    )
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
