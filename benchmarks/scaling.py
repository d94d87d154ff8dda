"""LeNet on one host and on two: images/s, accuracy, and the checkpoint that came home.

The hosts are network namespaces on a bridge, each with its own address and sshd; both trainings
are flowlaunch runs of jobs/lenet.py over all of MNIST, and take turns.

    python benchmarks/scaling.py MNIST.npz [--epochs 1] [--rounds 3]

Needs root, sshd and iproute2.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.e2e.test_lenet import JOB, whole  # noqa: E402
from tests.support.lab import Lab, lab_of_namespaces  # noqa: E402
from tests.support.netns import ssh_namespaces  # noqa: E402
from tests.support.runtime import oneflow_python  # noqa: E402

RATE = re.compile(r"([0-9.]+) images/s")
ACCURACY = re.compile(r"test accuracy: ([0-9.]+)%")
SKIPPED = 2


def train(lab: Lab, nodes: str, options: list[str]) -> tuple[float, float]:
    """Trains on some of the nodes; returns the median images/s and the accuracy in per cent."""
    done = lab.flowlaunch("run", JOB, "--nodes", nodes, "--", *options, limit_s=1200)
    if done.code:
        sys.exit(done.err)
    rates = [float(rate) for rate in RATE.findall(done.out)][SKIPPED:]
    accuracy = float(ACCURACY.findall(done.out)[-1])
    broken = [path for path in (lab.run_dir() / "checkpoints").iterdir() if not whole(path)]
    if broken:
        sys.exit(f"not whole: {broken}")
    return statistics.median(rates), accuracy


def main() -> None:
    """Prints each training and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    words = ["--data", str(options.mnist.resolve()), "--epochs", str(options.epochs)]
    rates: dict[str, list[float]] = {"n1": [], "n1,n2": []}
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        with ssh_namespaces(top / "net", 2) as hosts:
            lab = lab_of_namespaces(top, hosts)
            lab.manifest(oneflow_python(), lab.ssh_nodes())
            for number in range(options.rounds):
                for nodes, measured in rates.items():
                    rate, accuracy = train(lab, nodes, words)
                    measured.append(rate)
                    print(f"round {number + 1}  {nodes:<6} {rate:7.1f} images/s  {accuracy:.2f} %",
                          flush=True)  # fmt: skip
    one, two = (statistics.median(measured) for measured in rates.values())
    print(f"two hosts make {two / one:.2f} times the images/s of one; checkpoints are whole")


if __name__ == "__main__":
    main()
