"""Scripts of the old API under the launcher: on two hosts, stopped, resumed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.legacy.material import HERE, MNIST, draw_mnist, floats, tutorial_scripts
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


def checkpoint_at(lab: Lab) -> tuple[int, set[str]]:
    """Returns the step of the newest run's only checkpoint, and the files that it has."""
    (home,) = (lab.run_dir() / "checkpoints").iterdir()
    manifest = json.loads((home / "MANIFEST.json").read_text())
    return manifest["step"], {entry["path"] for entry in manifest["files"]}


@pytest.mark.oneflow
def test_what_a_script_learnt_comes_home_and_is_gone_on_with(
    lab: Lab, runtime_python: Path
) -> None:
    lab.manifest(runtime_python, [{"name": "here", "transport": "local"}])
    script = (HERE / "own" / "typed.py").read_text()
    epochs = "list(zip(images, labels)) * int(sys.argv[2])"
    lab.write("typed.py", script.replace("zip(images, labels)", epochs, 1))
    draw_mnist(lab.top / "mnist.npz", batches=120)

    # Stopped long before it would save: it is stopped with what it has learnt.
    process = lab.start(
        "run", "--legacy-api", "--grace", "60", "typed.py", "--", "train", "100000"
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "loss" in line:
            break
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    stopped_at, files = checkpoint_at(lab)
    assert stopped_at >= 1
    assert {"conv-weight/out", "dense2-bias/out", "snapshot_done"} <= files
    assert f"stopped after step {stopped_at}" in err

    done = lab.flowlaunch("run", "--legacy-api", "--resume", "last", "typed.py", "--", "train", "1")
    assert done.code == 0, done.err
    assert f"begins with step-{stopped_at:08d}, as --resume says" in done.err
    step, files_then = checkpoint_at(lab)
    assert (step, files_then) == (stopped_at + 120, files)

    done = lab.flowlaunch("run", "--legacy-api", "--resume", "last", "typed.py", "--", "eval")
    assert done.code == 0, done.err
    found = re.search(r"accuracy: ([\d.]+)", done.out)
    assert found is not None and float(found.group(1)) > 0.95


@pytest.mark.oneflow
@pytest.mark.soak
def test_the_tutorials_as_printed_with_nothing_but_a_time_limit(
    lab: Lab, runtime_python: Path
) -> None:
    lab.manifest(runtime_python, [{"name": "here", "transport": "local"}])
    for name in ("train", "eval", "test"):
        lab.write(f"lenet_{name}.py", tutorial_scripts()[f"lenet_{name}_en.py"])
    shutil.copy(MNIST, lab.top / "mnist.npz")

    def old(*words: str) -> str:
        done = lab.flowlaunch("run", "--legacy-api", *words, limit_s=600)
        assert done.code in (0, 124), done.err
        return done.out

    # 20 epochs are asked for; a machine with nothing else to do comes to the third.
    old("lenet_train.py", "--timeout", "420", "--name", "trained")
    found = re.search(r"accuracy: ([\d.]+)%", old("lenet_eval.py", "--resume", "trained"))
    assert found is not None and float(found.group(1)) >= 97.0
    with np.load(MNIST) as arrays:
        images, labels = arrays["x_test"], arrays["y_test"]
    right = 0
    for digit in range(10):
        Image.fromarray(images[np.flatnonzero(labels == digit)[0]]).save(lab.top / "9.png")
        said = old("lenet_test.py", "--resume", "trained", "--", "9.png")
        right += re.search(rf"prediction: {digit}\b", said) is not None
    assert right >= 9
