"""AlexNet over two hosts, and on from what it learnt: there, and on one worker."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.e2e.test_lenet import whole
from tests.legacy.material import PHOTOGRAPHS
from tests.support.lab import ROOT, Factory, Lab

JOB = str(ROOT / "jobs" / "alexnet.py")
LIMIT_S = 1500.0


@pytest.fixture
def records(tmp_path: Path) -> str:
    """All the photographs, in 8 parts, made as a person makes them."""
    if not PHOTOGRAPHS.is_file():
        pytest.skip("the photographs are not beside the project; test_lenet.py takes this path")
    with tarfile.open(PHOTOGRAPHS) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "imagenet-sample"
    made = tmp_path / "OF"
    make = ["make", "--images", str(folder), "--labels", str(folder / "labels.csv"), "--parts", "8"]
    subprocess.run([sys.executable, "-m", "jobs.ofrecord", *make, str(made)], cwd=ROOT, check=True)
    return str(made)


def losses(lab: Lab, *words: str, images: int = 1000) -> list[float]:
    """Runs the job; returns the training losses that its table shows."""
    done = lab.flowlaunch("run", JOB, *words, limit_s=LIMIT_S)
    assert done.code == 0, done.err
    found = rf"evaluated {images} images: .*top-1 [\d.]+%, top-5 [\d.]+%"
    assert re.search(found, done.out), done.out
    return [float(loss) for loss in re.findall(r"train loss: +([\d.]+)", done.out)]


@pytest.mark.oneflow
@pytest.mark.soak
def test_alexnet_on_two_hosts_and_on_from_there(
    lab_of: Factory, runtime_python: Path, records: str
) -> None:
    lab = lab_of(2)
    manifest = lab.manifest(runtime_python, lab.ssh_nodes())
    data = ("-t", records, "-e", records)
    first = losses(lab, "--cluster", str(manifest), "--", "-i", "20", *data)
    assert len(first) == 20
    (home,) = (lab.run_dir() / "checkpoints").iterdir()
    assert home.name == "step-00000020"
    assert whole(home)

    then = losses(lab, "--nodes", "n1", "--", "-i", "2", "-load", str(home), *data)
    # It begins where the other ended, not at the ln 1001 of a network that knows nothing.
    assert then[0] < sum(first[:5]) / 5
    lab.no_survivors()


@pytest.mark.oneflow
@pytest.mark.soak
def test_a_resumed_run_goes_on_along_the_same_curve(lab_of: Factory, runtime_python: Path) -> None:
    lab = lab_of(2)
    manifest = str(lab.manifest(runtime_python, lab.ssh_nodes()))
    # What the optimizer remembers has to come along: without its momentum the curves part.
    own = ("-i", "8", "--dropout", "0", "--momentum", "0.5", "--lr", "0.001", "--batch-size", "8")
    whole_way = losses(
        lab, "--cluster", manifest, "--name", "whole", "--", *own, "--save-every", "4", images=64
    )
    assert len(whole_way) == 8
    for nodes in ("n1,n2", "n1"):
        rest = losses(lab, "--resume", "whole@4", "--nodes", nodes, "--", *own, images=64)
        assert rest == pytest.approx(whole_way[4:], rel=1e-5)
    lab.no_survivors()
