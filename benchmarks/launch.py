"""How long it takes to start a job on many nodes, beside pdsh and mpirun on the same servers.

Every node is an address of 127.0.1.x that one real sshd listens on; the job prints its rank.
pdsh and mpirun run ``true``. The three take turns, and medians are compared.

    python benchmarks/launch.py [--nodes 1,16,64] [--rounds 3]

Needs sshd, pdsh and mpirun (Debian: openssh-server pdsh openmpi-bin), and Linux's /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.keys import make_key  # noqa: E402
from tests.support.servers import SshHost, free_port  # noqa: E402
from tests.support.sshd import running_sshd  # noqa: E402

JOB = 'import os\nprint("rank", os.environ["RANK"])\n'
# The servers' default would turn away the peers, which dial without a bound of their own.
SETTINGS = ("MaxStartups 500",)
# sshd is built for so many.
ADDRESSES_A_SERVER = 16


class Bench:
    """A client's directory with what each launcher needs."""

    def __init__(self, top: Path, host: SshHost, count: int) -> None:
        self.top = top
        self.names = [f"node{number:02d}" for number in range(1, count + 1)]
        self.addresses = [f"127.0.1.{number}" for number in range(1, count + 1)]
        self.host = host
        self.home = top / "person"
        (self.home / ".ssh").mkdir(parents=True)
        self._write_ssh()
        self._write_cluster()
        self.work = top / "work"
        self.work.mkdir()
        (self.work / "job.py").write_text(JOB)
        self._write_mpi_agent()
        # By address: mpirun would ask the resolver for each name, and wait for it.
        slots = "".join(f"{address} slots=1\n" for address in self.addresses)
        (top / "hostfile").write_text(slots)

    def _write_ssh(self) -> None:
        known = self.home / ".ssh" / "known_hosts"
        port, key = self.host.port, self.host.host_key.public
        known.write_text("".join(f"[{addr}]:{port} {key}\n" for addr in self.addresses))
        blocks = [
            f"Host {name}\n  HostName {addr}\n"
            for name, addr in zip(self.names, self.addresses, strict=True)
        ]
        shared = (
            f"Host *\n  Port {port}\n  User {self.host.user}\n"
            f"  IdentityFile {self.host.identity.path}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n"
        )
        self.config = self.home / ".ssh" / "config"
        self.config.write_text("".join(blocks) + shared)
        self.config.chmod(0o600)

    def _write_cluster(self) -> None:
        nodes = [
            {"name": name, "addr": addr, "ssh": {"host": name}}
            for name, addr in zip(self.names, self.addresses, strict=True)
        ]
        fields = {"name": "bench", "defaults": {"python": "/usr/bin/python3"}, "nodes": nodes}
        (self.top / "cluster.yaml").write_text(json.dumps(fields))

    def _write_mpi_agent(self) -> None:
        """Gives each of mpirun's daemons a TMPDIR: they would meet in one /tmp here, and race."""
        for name in self.addresses:
            (self.top / "tmp" / name).mkdir(parents=True)
        self.mpi_agent = self.top / "mpi-ssh"
        self.mpi_agent.write_text(
            "#!/bin/sh\nhost=$1; shift\n"
            f'exec ssh -F {self.config} "$host" "export TMPDIR={self.top}/tmp/$host; $*"\n'
        )
        self.mpi_agent.chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Returns what every launcher finds set."""
        return {**os.environ, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}

    def flowlaunch(self) -> Sequence[str]:
        """Returns the command of the product."""
        return [sys.executable, "-m", "launcher.cli.main", "run", "work/job.py"]

    def pdsh(self) -> Sequence[str]:
        """Returns pdsh's command, with all nodes at once."""
        return ["pdsh", "-S", "-R", "ssh", "-f", str(len(self.names)), "-w",
                ",".join(self.names), "true"]  # fmt: skip

    def mpirun(self) -> Sequence[str]:
        """Returns mpirun's command, with all nodes at once."""
        root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        return ["mpirun", *root, "--mca", "plm_rsh_agent", str(self.mpi_agent), "--mca",
                "plm_rsh_num_concurrent", str(len(self.names)), "--hostfile",
                str(self.top / "hostfile"), "-np", str(len(self.names)), "true"]  # fmt: skip


def measure(bench: Bench, command: Sequence[str]) -> tuple[float, float]:
    """Returns a command's wall time in seconds and its peak memory in MB; it must succeed."""
    env = bench.environment()
    env["PDSH_SSH_ARGS_APPEND"] = f"-F {bench.config}"
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=bench.top, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.stdout.close()
    took = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} failed: {output.decode(errors='replace')[-2000:]}")
    return took, usage.ru_maxrss / 1024


@contextlib.contextmanager
def servers(top: Path, addresses: Sequence[str]) -> Iterator[SshHost]:
    """Runs as many sshd as the addresses need, with one port and host key; gives the first."""
    identity, host_key = make_key(top / "client_key"), make_key(top / "host_key")
    port = free_port()
    with contextlib.ExitStack() as stack:
        hosts = [
            stack.enter_context(
                running_sshd(
                    top / str(first),
                    addresses=addresses[first : first + ADDRESSES_A_SERVER],
                    port=port,
                    identity=identity,
                    host_keys=[host_key],
                    settings=SETTINGS,
                )
            )
            for first in range(0, len(addresses), ADDRESSES_A_SERVER)
        ]
        yield hosts[0]


def compare(count: int, rounds: int) -> dict[str, float]:
    """Measures all launchers on so many nodes, in turns."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        addresses = tuple(f"127.0.1.{number}" for number in range(1, count + 1))
        with servers(top / "ssh", addresses) as host:
            bench = Bench(top, host, count)
            contenders: dict[str, Callable[[], Sequence[str]]] = {
                "flowlaunch": bench.flowlaunch, "pdsh": bench.pdsh, "mpirun": bench.mpirun,
            }  # fmt: skip
            times: dict[str, list[float]] = {name: [] for name in contenders}
            memory = 0.0
            for command in contenders.values():  # Fills caches, ours and the kernel's.
                measure(bench, command())
            for _ in range(rounds):
                for name, command in contenders.items():
                    took, peak = measure(bench, command())
                    times[name].append(took)
                    memory = max(memory, peak) if name == "flowlaunch" else memory
            shutil.rmtree(bench.top / "runs")
    return {**{name: statistics.median(all_) for name, all_ in times.items()}, "memory": memory}


def main() -> None:
    """Prints a row for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", default="1,16,64", help="numbers of nodes (1,16,64)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (3)")
    options = parser.parse_args()
    print("nodes  flowlaunch     pdsh   mpirun   to pdsh  to mpirun  launcher's memory")
    for count in map(int, options.nodes.split(",")):
        row = compare(count, options.rounds)
        own, pdsh, mpirun = row["flowlaunch"], row["pdsh"], row["mpirun"]
        print(
            f"{count:5d}  {own:8.2f} s  {pdsh:5.2f} s  {mpirun:5.2f} s  "
            f"{own / pdsh:7.2f}x  {own / mpirun:8.2f}x  {row['memory']:6.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
