"""What a worker that prints a gigabyte as fast as it can costs another rank's steps.

Two workers on this machine. Rank 1 takes steps of some 5 ms, alone on a core as a rank of a real
job is. Rank 0 shares the other core with agent and launcher: by turns it is silent, or prints as
fast as it can what then has to be moved. The median steps of both kinds of turns are compared; that
they take turns every few seconds cancels what else the machine does.

    python benchmarks/loud.py [--megabytes 1000] [--turns 10]

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
# How long a turn is looked at, and how long what was printed may take to be moved besides.
TURN_S, PAUSE_S = 2.5, 1.5
JOB = """
import json, os, sys, time
rank, out = int(os.environ["RANK"]), sys.stdout.buffer
done = os.path.join(os.environ["FLOWLAUNCH_ROOT"], "done")
piece = b"epoch 3 step 12345/200000 loss 0.69314718 images/s 1234.5 lr 0.0100\\n" * 1000
if rank == 0:
    turns = []
    time.sleep(2.0)
    for turn in range({turns}):
        turns.append((time.monotonic(), False))
        time.sleep({turn_s})
        turns.append((time.monotonic(), True))
        until = time.monotonic() + {turn_s}
        for _ in range(int({megabytes} * 1000000) // len(piece)):
            out.write(piece)
        out.flush()
        time.sleep(max(0.0, until - time.monotonic()) + {pause_s})
    print(json.dumps(turns), file=sys.stderr)
    open(done, "w").close()
else:
    os.sched_setaffinity(0, {{ {core} }})
    steps = []
    while not os.path.exists(done):
        started = time.monotonic()
        total = sum(number * number for number in range(60_000))
        steps.append((started, time.monotonic() - started))
    print(json.dumps(steps))
"""


def run_job(top: Path, megabytes: float, turns: int, cores: list[int]) -> Path:
    """Runs the job; returns the directory of its logs."""
    text = JOB.format(
        megabytes=megabytes, turns=turns, turn_s=TURN_S, pause_s=PAUSE_S, core=cores[1]
    )
    (top / "job.py").write_text(text)
    nodes = [{"name": "here", "transport": "local", "slots": 2}]
    fields = {"name": "loud", "defaults": {"python": sys.executable}, "nodes": nodes}
    (top / "cluster.yaml").write_text(json.dumps(fields))
    (top / "home").mkdir()
    command = ["taskset", "-c", str(cores[0]), sys.executable, "-m", "launcher.cli.main", "run"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(top / "home")}
    done = subprocess.run([*command, "job.py"], cwd=top, env=env, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"the job failed: {done.stderr.decode(errors='replace')[-2000:]}")
    (logs,) = (top / "runs").glob("*/logs/here")
    return logs


def step_times(logs: Path) -> dict[bool, list[float]]:
    """Returns the steps of silent and of loud turns, seconds."""
    turns = json.loads((logs / "rank-0.stderr.log").read_bytes())
    found: dict[bool, list[float]] = {False: [], True: []}
    for started, took in json.loads((logs / "rank-1.stdout.log").read_bytes()):
        for begin, is_loud in turns:
            if begin <= started < begin + TURN_S:
                found[is_loud].append(took)
    return found


def main() -> None:
    """Prints the step times of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=1000, help="what rank 0 prints (1000)")
    parser.add_argument("--turns", type=int, default=10, help="turns of each kind (10)")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("needs two cores")
    with tempfile.TemporaryDirectory() as directory:
        logs = run_job(Path(directory), options.megabytes / options.turns, options.turns, cores)
        printed = (logs / "rank-0.stdout.log").stat().st_size
        steps = step_times(logs)
    silent, loud = (statistics.median(steps[is_loud]) * 1000 for is_loud in (False, True))
    print(f"{printed / 1e6:.0f} MB printed in {options.turns} turns")
    print(f"a step, beside a silent rank: {silent:.3f} ms (of {len(steps[False])})")
    print(f"a step, beside a loud one:    {loud:.3f} ms (of {len(steps[True])})")
    print(f"slower by {(loud / silent - 1) * 100:.2f} %")


if __name__ == "__main__":
    main()
