"""LeNet's images/s under flowlaunch, beside OneFlow's own launcher on this machine.

Both start two workers of the same script with the same environment; they take turns, and the
medians are compared: of the images/s that the script prints, and of those from one of its first
steps until its last by a clock beside it, which also has the time that evaluating and publishing
take. What flowlaunch adds while workers train (reading their output, metrics, bringing checkpoints
home) would show here; with --save-every, above all the last.

    python benchmarks/overhead.py [--rounds 5] [--epochs 3] [--save-every 20]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launcher.agent.ports import choose_free  # noqa: E402
from launcher.agent.workers import worker_environment  # noqa: E402
from tests.support.runtime import oneflow_python  # noqa: E402

STEP = re.compile(r"step (\d+)/\d+ loss \S+ ([0-9.]+) images/s")
WORKERS = 2
BATCH = 100
# The first reports of a run cover the warming up.
SKIPPED = 2


class Speed(NamedTuple):
    """Images a second: the median of what the job printed, and over all of its steps."""

    printed: float
    overall: float


def speed(lines: Iterable[str]) -> Speed:
    """Reads a job's output as it comes."""
    reports = []
    for line in lines:
        found = STEP.search(line)
        if found:
            reports.append((time.monotonic(), int(found[1]), float(found[2])))
    (began, first, _), (ended, last, _) = reports[SKIPPED - 1], reports[-1]
    printed = statistics.median(rate for _, _, rate in reports[SKIPPED:])
    return Speed(printed, BATCH * (last - first) / (ended - began))


def with_flowlaunch(python: Path, job: list[str], top: Path) -> Speed:
    """Trains under flowlaunch."""
    manifest = top / "cluster.yaml"
    manifest.write_text(
        f"nodes:\n  - {{name: this, transport: local, slots: {WORKERS}, python: {python}}}\n"
    )
    own = [sys.executable, "-m", "launcher.cli.main", "run", "jobs/lenet.py"]
    command = [*own, "-c", str(manifest), "--runs-dir", str(top / "runs"), "--", *job]
    return _run(command, dict(os.environ))


def with_oneflow(python: Path, job: list[str], top: Path) -> Speed:
    """Trains under oneflow.distributed.launch."""
    env = worker_environment({}, {"FLOWLAUNCH_CHECKPOINT_DIR": str(top / f"{choose_free()}")})
    env["PYTHONPATH"] = str(ROOT)
    env["PYTHONUNBUFFERED"] = "1"
    peer = [str(python), "-m", "oneflow.distributed.launch", "--nproc_per_node", str(WORKERS)]
    command = [*peer, "--master_port", str(choose_free()), "jobs/lenet.py", *job]
    return _run(command, env)


def _run(command: list[str], env: dict[str, str]) -> Speed:
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=said, text=True
        )
        assert process.stdout is not None
        with process.stdout as lines:
            found = speed(lines)
        if process.wait():
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read()[-2000:]}")
    return found


def main() -> None:
    """Prints each round and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a run (3)")
    parser.add_argument("--save-every", type=int, help="a checkpoint also each so many steps")
    options = parser.parse_args()
    job = ["--epochs", str(options.epochs)]
    if options.save_every:
        job += ["--save-every", str(options.save_every)]
    python = oneflow_python()
    contenders = {"flowlaunch": with_flowlaunch, "oneflow.distributed.launch": with_oneflow}
    measured: dict[str, list[Speed]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(options.rounds):
            for name, train in contenders.items():
                found = train(python, job, Path(directory))
                measured[name].append(found)
                shown = f"{found.printed:6.1f} images/s printed, {found.overall:6.1f} over all"
                print(f"round {number + 1}  {name:<26}  {shown}", flush=True)
    for kind in Speed._fields:
        own, peer = (
            statistics.median(getattr(found, kind) for found in measured[name])
            for name in contenders
        )
        print(
            f"{kind}: flowlaunch {own:.1f}, oneflow.distributed.launch {peer:.1f} images/s; "
            f"ratio {own / peer:.3f}"
        )


if __name__ == "__main__":
    main()
