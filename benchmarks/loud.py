"""What a worker that prints a gigabyte as fast as it can costs another rank's steps.

Two workers on this machine: rank 1 takes steps of some 5 ms, alone on a core as a rank of a real
job is; rank 0 prints, or does not, and shares the other core with agent and launcher. The two take
turns; the ratio of the median step times is what it costs.

    python benchmarks/loud.py [--megabytes 1000] [--rounds 5]

Needs two cores, and Linux's taskset.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUIET_S = 8.0
JOB = """
import json, os, sys, time
rank, size = int(os.environ["RANK"]), {size}
quiet_until = time.monotonic() + {quiet_s}
done = os.path.join(os.environ["FLOWLAUNCH_ROOT"], "done")
if rank == 0:
    line = b"epoch 3 step 12345/200000 loss 0.69314718 images/s 1234.5 lr 0.0100 grad_norm 1.23\\n"
    piece = line * 1000
    for _ in range(size // len(piece)):
        sys.stdout.buffer.write(piece)
    while not size and time.monotonic() < quiet_until:
        time.sleep(0.1)
    open(done, "w").close()
else:
    os.sched_setaffinity(0, {{ {core} }})
    times = []
    while not os.path.exists(done):
        started = time.perf_counter()
        total = sum(number * number for number in range(60_000))
        times.append(time.perf_counter() - started)
    print(json.dumps(times))
"""


def step_times(top: Path, size: int, cores: list[int]) -> list[float]:
    """Runs the job; returns how long each step of rank 1 took, seconds."""
    text = JOB.format(size=size, quiet_s=QUIET_S, core=cores[1])
    (top / "job.py").write_text(text)
    nodes = [{"name": "here", "transport": "local", "slots": 2}]
    fields = {"name": "loud", "defaults": {"python": sys.executable}, "nodes": nodes}
    (top / "cluster.yaml").write_text(json.dumps(fields))
    command = ["taskset", "-c", str(cores[0]), sys.executable, "-m", "launcher.cli.main", "run"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(top / "home")}
    (top / "home").mkdir(exist_ok=True)
    subprocess.run([*command, "job.py"], cwd=top, env=env, check=True, stdout=subprocess.DEVNULL)
    (log,) = (top / "runs").glob("*/logs/here/rank-1.stdout.log")
    times: list[float] = json.loads(log.read_bytes())
    printed = log.with_name("rank-0.stdout.log").stat().st_size
    if printed < 0.99 * size:
        sys.exit(f"only {printed} of {size} bytes are here")
    subprocess.run(["rm", "-rf", str(top / "runs")], check=True)
    # The first steps are before the other rank has begun.
    return times[len(times) // 10 :]


def main() -> None:
    """Prints the step times of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=1000, help="what rank 0 prints (1000)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (5)")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("needs two cores")
    quiet, loud = [], []
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(options.rounds):
            quiet.append(statistics.median(step_times(Path(directory), 0, cores)))
            flood = step_times(Path(directory), options.megabytes * 1_000_000, cores)
            loud.append(statistics.median(flood))
    before, beside = statistics.median(quiet), statistics.median(loud)
    print(f"a step, beside a silent rank:       {before * 1000:.3f} ms")
    print(f"a step, beside one that prints {options.megabytes} MB: {beside * 1000:.3f} ms")
    print(f"slower by {(beside / before - 1) * 100:.2f} %")


if __name__ == "__main__":
    main()
