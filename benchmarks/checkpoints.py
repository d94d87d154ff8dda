"""How fast checkpoints come here, beside rsync and scp over the same sshd.

Nodes are addresses of 127.0.1.x that one real sshd listens on. What is compared: 240 MB from one
node; the same 240 MB from four nodes, where the others copy four times; and a second checkpoint
that shares nine tenths with the first, where the others copy it whole. flowlaunch's time is from
the moment that it hears of a checkpoint until that stands here, proven and fsynced; theirs is that
of the command, which logs in first and proves nothing. All take turns; medians are compared.

    python benchmarks/checkpoints.py [--mb 240] [--rounds 3]

Needs sshd and rsync (Debian: openssh-server rsync), and Linux's /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.launch import Bench, servers  # noqa: E402

NODES = 4
FILES = 30
# Every node publishes the same; of the second step, one file in ten is another one.
JOB = """
import os, random, sys, time
from launcher import worker
w = worker.context()
for step in (1, 2):
    def write(top):
        for number in range({files}):
            seed = number if number % 10 else number + 1000 * step
            with open(os.path.join(top, "f%d" % number), "wb") as file:
                file.write(random.Random(seed).randbytes({size}))
    path = w.save_files(write, step)
    print(path, flush=True)
    time.sleep({pause})
"""


def took_to_store(run: Path) -> dict[int, float]:
    """Returns, for each step, the seconds from its announcement until it stood here."""
    began: dict[int, float] = {}
    took: dict[int, float] = {}
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "checkpoint_published":
            began.setdefault(event["step"], event["time"])
        elif event["event"] == "checkpoint_stored":
            took[event["step"]] = event["time"] - began[event["step"]]
    return took


def flowlaunch(bench: Bench, nodes: int) -> dict[int, float]:
    """Runs a job that publishes two steps on so many nodes; returns how long each took to come."""
    command = [*bench.flowlaunch(), "--nodes", ",".join(bench.names[:nodes])]
    done = subprocess.run(
        command, cwd=bench.top, env=bench.environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"flowlaunch failed: {done.stderr[-2000:]}")
    (run,) = [path for path in (bench.top / "runs").iterdir() if path.is_dir()]
    took = took_to_store(run)
    shutil.rmtree(bench.top / "runs")
    return took


def copy(bench: Bench, program: str, source: Path, nodes: int) -> float:
    """Copies a directory from so many nodes at once; returns the seconds that it took."""
    ssh = f"ssh -F {bench.config}"
    started = time.monotonic()
    running = []
    for name in bench.names[:nodes]:
        target = bench.top / "copies" / name
        target.mkdir(parents=True)
        words = {
            "rsync": ["rsync", "-a", "-e", ssh, f"{name}:{source}/", str(target)],
            "scp": [
                "scp",
                "-O",
                "-q",
                "-r",
                "-F",
                str(bench.config),
                f"{name}:{source}",
                str(target),
            ],
        }[program]
        running.append(subprocess.Popen(words, env=bench.environment()))
    for process in running:
        if process.wait():
            sys.exit(f"{program} failed")
    took = time.monotonic() - started
    shutil.rmtree(bench.top / "copies")
    return took


def main() -> None:
    """Prints a row for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mb", type=int, default=240, help="a checkpoint's size (240)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (3)")
    options = parser.parse_args()
    rows: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        rows.setdefault(name, []).append(seconds)

    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        addresses = tuple(f"127.0.1.{number}" for number in range(1, NODES + 1))
        size = options.mb * 1_000_000 // FILES
        source = top / "source"
        source.mkdir()
        for number in range(FILES):
            (source / f"f{number}").write_bytes(os.urandom(size))
        with servers(top / "ssh", addresses) as host:
            bench = Bench(top, host, NODES)
            text = JOB.format(files=FILES, size=size, pause=2)
            (bench.work / "job.py").write_text(text)
            for _ in range(options.rounds):
                one, four = flowlaunch(bench, 1), flowlaunch(bench, NODES)
                note("one node", one[1])
                note("second step", one[2])
                note("four nodes", four[1])
                for program in ("rsync", "scp"):
                    note(f"{program}, one", copy(bench, program, source, 1))
                    note(f"{program}, four", copy(bench, program, source, NODES))
    medians = {name: statistics.median(times) for name, times in rows.items()}
    print(f"{options.mb} MB          flowlaunch   rsync     scp   to rsync")
    for title, own, peer in (
        ("one node", "one node", "one"),
        ("four nodes", "four nodes", "four"),
        ("90 % shared", "second step", "one"),
    ):
        rsync, scp = medians[f"rsync, {peer}"], medians[f"scp, {peer}"]
        ours = medians[own]
        print(f"{title:<14}{ours:8.2f} s {rsync:6.2f} s {scp:6.2f} s {ours / rsync:8.2f}x")


if __name__ == "__main__":
    main()
