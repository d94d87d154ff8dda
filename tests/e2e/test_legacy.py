"""A script of the tutorials on two hosts: it sees what it saw on one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.legacy.material import MNIST, floats, tutorial_scripts
from tests.support.lab import Factory, Lab

STEPS = 20


def curve(lab: Lab, nodes: str) -> list[float]:
    """Trains on these nodes until enough losses are there, and returns them."""
    process = lab.start("run", "train.py", "--nodes", nodes, "--legacy-api", "--placement", "all")
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line.partition(" | ")[2])
            if len(floats(lines)) >= STEPS:
                break
    finally:
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    lab.no_survivors()
    return floats(lines)[:STEPS]


@pytest.mark.oneflow
def test_the_losses_of_two_hosts_are_those_of_one(lab_of: Factory, runtime_python: Path) -> None:
    lab = lab_of(2)
    lab.manifest(runtime_python, lab.ssh_nodes())
    # All that is changed: every loss is printed, not every twentieth.
    script = tutorial_scripts()["lenet_train_en.py"].replace("if i % 20 == 0", "if i % 1 == 0")
    lab.write("train.py", script)
    shutil.copy(MNIST, lab.top / "mnist.npz")
    one, two = curve(lab, "n1"), curve(lab, "n1,n2")
    assert len(one) == len(two) == STEPS
    assert two == pytest.approx(one, abs=1e-5)
