"""LeNet's images/s under flowlaunch, beside OneFlow's own launcher on this machine.

Both start two workers of the same script with the same environment; they take turns, and the
medians of the images/s that the script prints are compared. What flowlaunch adds while workers
train (reading their output, metrics, checkpoints) would show here.

    python benchmarks/overhead.py [--rounds 5] [--epochs 3]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launcher.agent.ports import choose_free  # noqa: E402
from launcher.agent.workers import worker_environment  # noqa: E402
from tests.support.runtime import oneflow_python  # noqa: E402

RATE = re.compile(r"([0-9.]+) images/s")
WORKERS = 2
# The first reports of a run cover the warming up.
SKIPPED = 2


def rates(output: str) -> list[float]:
    """Returns the images/s that a run printed, without the first ones."""
    return [float(rate) for rate in RATE.findall(output)][SKIPPED:]


def with_flowlaunch(python: Path, epochs: int, top: Path) -> str:
    """Trains under flowlaunch and returns what rank 0 printed."""
    manifest = top / "cluster.yaml"
    manifest.write_text(
        f"nodes:\n  - {{name: this, transport: local, slots: {WORKERS}, python: {python}}}\n"
    )
    own = [sys.executable, "-m", "launcher.cli.main", "run", "jobs/lenet.py"]
    command = [*own, "-c", str(manifest), "--runs-dir", str(top / "runs"), "--"]
    command += ["--epochs", str(epochs)]
    return _output(command, dict(os.environ))


def with_oneflow(python: Path, epochs: int, top: Path) -> str:
    """Trains under oneflow.distributed.launch and returns what rank 0 printed."""
    env = worker_environment({}, {"FLOWLAUNCH_CHECKPOINT_DIR": str(top / f"{choose_free()}")})
    env["PYTHONPATH"] = str(ROOT)
    env["PYTHONUNBUFFERED"] = "1"
    peer = [str(python), "-m", "oneflow.distributed.launch", "--nproc_per_node", str(WORKERS)]
    command = [*peer, "--master_port", str(choose_free()), "jobs/lenet.py"]
    command += ["--epochs", str(epochs)]
    return _output(command, env)


def _output(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    """Prints each round and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a run (3)")
    options = parser.parse_args()
    python = oneflow_python()
    contenders = {"flowlaunch": with_flowlaunch, "oneflow.distributed.launch": with_oneflow}
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(options.rounds):
            for name, train in contenders.items():
                rate = statistics.median(rates(train(python, options.epochs, Path(directory))))
                measured[name].append(rate)
                print(f"round {number + 1}  {name:<26}  {rate:6.1f} images/s", flush=True)
    own, peer = (statistics.median(measured[name]) for name in contenders)
    print(f"medians: flowlaunch {own:.1f}, oneflow.distributed.launch {peer:.1f} images/s")
    print(f"ratio: {own / peer:.3f} (at least 0.99 is wanted)")


if __name__ == "__main__":
    main()
