"""Runs jobs by hand, on one worker or several, as a launcher's bootstrap would start them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.deadline import wait_until
from tests.support.processes import end_tree
from tests.support.runtime import oneflow_python

ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 150.0
# What the bootstrap sets on a CPU with avx2 and fma; without them the tests take thrice as long.
_FAST = {
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEFLOW_ENABLE_ONEDNN_OPTS": "0",
    "ONEFLOW_VM_COMPUTE_ON_WORKER_THREAD": "0",
    "OMP_NUM_THREADS": "1",
    "GLOG_minloglevel": "2",
}


@dataclass(frozen=True)
class Ended:
    """How one worker ended."""

    code: int
    out: str
    err: str


def run_job(
    workdir: Path, *argv: str, workers: int = 1, env: dict[str, str] | None = None
) -> list[Ended]:
    """Runs ``python ARGV…`` on so many workers in one directory; returns them by rank."""
    port = _free_port()
    own = {**os.environ, **_FAST, "PYTHONPATH": str(ROOT), **(env or {})}
    if workers > 1:
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(workers)}
    with contextlib.ExitStack() as stack:
        started = []
        for rank in range(workers):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if workers > 1 else {}
            command = [str(oneflow_python()), *argv]
            started.append(stack.enter_context(_process(command, workdir, {**own, **place}, rank)))
            if rank == 0 and workers > 1:
                # A rank that comes before rank 0 listens sleeps for ten seconds.
                _wait_listening(started[0], port)
        codes = [process.wait(_LIMIT_S) for process in started]
    return [
        Ended(code, _output(workdir, rank, "out"), _output(workdir, rank, "err"))
        for rank, code in enumerate(codes)
    ]


def run_well(workdir: Path, *argv: str, workers: int = 1, env: dict[str, str] | None = None) -> str:
    """Runs a job that must end well on every rank; returns what rank 0 printed."""
    ended = run_job(workdir, *argv, workers=workers, env=env)
    assert [worker.code for worker in ended] == [0] * workers, ended
    return ended[0].out


def _wait_listening(first: subprocess.Popen[bytes], port: int) -> None:
    wait_until(lambda: first.poll() is not None or _listens(port), "rank 0 listens", 60)


def _output(workdir: Path, rank: int, stream: str) -> str:
    return (workdir / f".rank-{rank}.{stream}").read_text()


@contextlib.contextmanager
def _process(
    command: list[str], workdir: Path, env: dict[str, str], rank: int
) -> Iterator[subprocess.Popen[bytes]]:
    out, err = workdir / f".rank-{rank}.out", workdir / f".rank-{rank}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=workdir, env=env, stdout=stdout, stderr=stderr)
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    end_tree(process.pid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            if local.endswith(wanted) and state == "0A":
                return True
    return False
