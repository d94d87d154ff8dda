"""How fast the lines of many workers come home, beside pdsh, clush and mpirun on the same servers.

Every node is an address of 127.0.1.x that one real sshd listens on. The same program prints the
same lines everywhere; what each launcher writes, prefixed, is read from a pipe, kept, and proven
afterwards line by line. flowlaunch writes each worker's bytes to a file besides, and those are
compared byte by byte. The contenders take turns; medians are compared.

    python benchmarks/logs.py [--nodes 8] [--lines 250000] [--rounds 3]

Needs sshd, pdsh, clush and mpirun (Debian: openssh-server pdsh clustershell openmpi-bin), and
Linux's /proc.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.launch import Bench, servers  # noqa: E402

# The worker is known by the address that its login came to, whoever started it.
PROGRAM = """
import os, sys
worker = int(os.environ["SSH_CONNECTION"].split()[2].rpartition(".")[2])
filler = "loss 0.69314718 images/s 1234.5 lr 0.0100 grad_norm 1.2345 epoch 3 of 90 eta 9h"
out = sys.stdout.buffer
for start in range(0, {lines}, 1000):
    stop = min(start + 1000, {lines})
    out.write("".join(
        "worker %02d line %09d %s\\n" % (worker, number, filler) for number in range(start, stop)
    ).encode())
out.flush()
"""
_LINE = re.compile(rb"(?m)^(?:.*?[ >:])?(worker (\d\d) line (\d{9}) .*)$")


def expected(worker: int, lines: int, start: int = 0) -> bytes:
    """Returns what a worker prints, from a line on."""
    filler = "loss 0.69314718 images/s 1234.5 lr 0.0100 grad_norm 1.2345 epoch 3 of 90 eta 9h"
    return "".join(
        f"worker {worker:02d} line {number:09d} {filler}\n" for number in range(start, lines)
    ).encode()


@dataclass(frozen=True)
class Result:
    """One measurement.

    Attributes:
        took_s: from the command's start to its end.
        memory_mb: its peak.
        wrong: lines that are missing, torn, out of order or merged, of all.
    """

    took_s: float
    memory_mb: float
    wrong: int


def commands(bench: Bench) -> dict[str, Sequence[str]]:
    """Returns what each contender is called with."""
    program = ["/usr/bin/python3", str(bench.top / "work" / "flood.py")]
    hosts = ",".join(bench.names)
    width = str(len(bench.names))
    root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    flowlaunch = [sys.executable, "-m", "launcher.cli.main", "run", "work/flood.py"]
    pdsh = ["pdsh", "-S", "-R", "ssh", "-f", width, "-w", hosts, " ".join(program)]
    clush = ["clush", "-f", width, "-o", f"-F {bench.config}", "-w", hosts, " ".join(program)]
    mpirun = ["mpirun", *root, "--tag-output", "--mca", "plm_rsh_agent", str(bench.mpi_agent),
              "--mca", "plm_rsh_num_concurrent", width, "--hostfile",
              str(bench.top / "hostfile"), "-np", width, *program]  # fmt: skip
    return {"flowlaunch": flowlaunch, "pdsh": pdsh, "clush": clush, "mpirun": mpirun}


def measure(bench: Bench, command: Sequence[str], lines: int) -> Result:
    """Runs one contender, keeps what it prints, and proves that."""
    env = bench.environment()
    env["PDSH_SSH_ARGS_APPEND"] = f"-F {bench.config}"
    kept, errors = bench.top / "printed", bench.top / "errors"
    started = time.monotonic()
    with kept.open("wb") as sink, errors.open("wb") as told:
        process = subprocess.Popen(
            command, cwd=bench.top, env=env, stdout=subprocess.PIPE, stderr=told
        )
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 1 << 20):
            sink.write(data)
        _, status, usage = os.wait4(process.pid, 0)
        process.stdout.close()
    took = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} failed: {errors.read_text(errors='replace')[-2000:]}")
    return Result(took, usage.ru_maxrss / 1024, prove_printed(kept, len(bench.names), lines))


def prove_printed(printed: Path, workers: int, lines: int) -> int:
    """Counts wrong lines in a process of its own.

    A child that is started by a large process counts that one's peak of memory as its own.
    """
    command = [sys.executable, __file__, "--prove", str(printed), str(workers), str(lines)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


def wrong_lines(printed: Path, workers: int, lines: int) -> int:
    """Returns how many of the expected lines did not come whole and in their order."""
    found: dict[int, list[bytes]] = {}
    for match in _LINE.finditer(printed.read_bytes()):
        found.setdefault(int(match[2]), []).append(match[1])
    wrong = 0
    for worker in range(1, workers + 1):
        wanted = expected(worker, lines).split(b"\n")[:-1]
        here = found.get(worker, [])
        if here != wanted:
            wrong += len(wanted) - len(set(here) & set(wanted)) or 1
    return wrong


def prove_files(bench: Bench, lines: int) -> None:
    """Compares the files that flowlaunch wrote, byte by byte, and removes the run."""
    for rank, name in enumerate(bench.names):
        (log,) = (bench.top / "runs").glob(f"*/logs/{name}/rank-{rank}.stdout.log")
        wanted = bench.top / "wanted"
        with wanted.open("wb") as file:
            for start in range(0, lines, 10_000):
                file.write(expected(rank + 1, min(lines, start + 10_000), start))
        if not filecmp.cmp(log, wanted, shallow=False):
            sys.exit(f"{log} is not what the worker printed")
    shutil.rmtree(bench.top / "runs")


def compare(nodes: int, lines: int, rounds: int, wanted: Sequence[str]) -> dict[str, list[Result]]:
    """Measures all contenders in turns."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        addresses = tuple(f"127.0.1.{number}" for number in range(1, nodes + 1))
        with servers(top / "ssh", addresses) as host:
            bench = Bench(top, host, nodes)
            (bench.work / "flood.py").write_text(PROGRAM.replace("{lines}", str(lines)))
            chosen = {name: words for name, words in commands(bench).items() if name in wanted}
            results: dict[str, list[Result]] = {name: [] for name in chosen}
            for _ in range(rounds):
                for name, command in chosen.items():
                    results[name].append(measure(bench, command, lines))
                    if name == "flowlaunch":
                        prove_files(bench, lines)
    return results


def main() -> None:
    """Prints a row for each contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=8, help="addresses to print on (8)")
    parser.add_argument("--lines", type=int, default=250_000, help="lines a worker (250000)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (3)")
    parser.add_argument("--prove", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="flowlaunch,pdsh,clush,mpirun", help="contenders (all)")
    options = parser.parse_args()
    if options.prove:
        printed, workers, lines = options.prove
        print(wrong_lines(Path(printed), int(workers), int(lines)))
        return
    results = compare(options.nodes, options.lines, options.rounds, options.only.split(","))
    total = options.nodes * options.lines
    size = total * len(expected(1, 1))
    print(f"{total:,} lines, {size / 1e6:.0f} MB, of {options.nodes} workers")
    own = statistics.median(result.took_s for result in results["flowlaunch"])
    print("contender    time  lines/s   of flowlaunch's time  peak memory  wrong lines (worst)")
    for name, measured in results.items():
        took = statistics.median(result.took_s for result in measured)
        memory = max(result.memory_mb for result in measured)
        wrong = max(result.wrong for result in measured)
        print(
            f"{name:10s} {took:5.1f} s  {total / took:8,.0f}  {took / own:18.2f}x"
            f"  {memory:8.0f} MB  {wrong:,}"
        )


if __name__ == "__main__":
    main()
