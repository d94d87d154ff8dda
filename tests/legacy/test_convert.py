"""Checkpoints of the old API and of the project's own jobs, carried over in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from launcher.legacy.convert import NETWORKS, main, network_of
from launcher.legacy.snapshot import write_snapshot
from launcher.legacy.unsupported import LegacyError
from tests.jobs.workers import ROOT, run_well
from tests.legacy.material import run_legacy_well

pytestmark = [pytest.mark.oneflow, pytest.mark.timeout(300)]

_OLD_LOGITS = """
import sys
import numpy as np
import oneflow as flow
import oneflow.typing as tp

def conv(x, filters, name):
    x = flow.layers.conv2d(x, filters, 5, padding="SAME", activation=flow.nn.relu, name=name)
    return flow.nn.max_pool2d(x, 2, 2, "SAME")

@flow.global_function()
def job(x: tp.Numpy.Placeholder((1, 1, 28, 28))) -> tp.Numpy:
    x = conv(conv(x, 32, "conv1"), 64, "conv2")
    x = flow.layers.dense(flow.reshape(x, [1, -1]), 512, activation=flow.nn.relu, name="dense1")
    return flow.layers.dense(x, 10, name="dense2")

flow.train.CheckPoint().load(sys.argv[1])
image = np.random.default_rng(1).random((1, 1, 28, 28), dtype=np.float32)
print(*job(image)[0])
"""

_NEW_LOGITS = """
import sys
import numpy as np
import oneflow as flow
from jobs import models, weights
from launcher import worker

model = models.lenet(dropout=0, seed=0)
weights.load(model, worker.context().load_checkpoint(sys.argv[1]))
image = np.random.default_rng(1).random((1, 1, 28, 28), dtype=np.float32)
print(*model(flow.tensor(image)).numpy()[0])
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A checkpoint of the tutorials' LeNet after 3 steps, in the old layout."""
    draw = np.random.default_rng(0)
    values = {
        one.old: draw.normal(0, 0.05, one.old_shape).astype(np.float32) for one in NETWORKS["lenet"]
    }
    values["System-Train-TrainStep-train_job"] = np.array([3], np.int64)
    write_snapshot(str(tmp_path / "old"), values)
    return tmp_path / "old"


def _convert(workdir: Path, *args: str) -> str:
    return run_well(workdir, "-m", "launcher.legacy.convert", *args).strip()


def _numbers(out: str) -> list[float]:
    return [float(word) for word in out.split()]


def test_an_old_checkpoint_goes_on_under_the_job(tmp_path: Path, old: Path) -> None:
    made = _convert(tmp_path, "old", "checkpoints")
    assert made == "checkpoints/step-00000003"
    script = tmp_path / "logits.py"
    script.write_text(_NEW_LOGITS)
    new = _numbers(run_well(tmp_path, str(script), made))
    assert new == pytest.approx(
        _numbers(run_legacy_well(tmp_path, _OLD_LOGITS, str(old))), abs=1e-4
    )
    env = {"FLOWLAUNCH_RESUME_FROM": str(tmp_path / made), "FLOWLAUNCH_DRY_RUN": "1"}
    out = run_well(tmp_path, str(ROOT / "jobs" / "lenet.py"), env=env)
    assert "going on after step 3 of 5" in out


def test_the_jobs_checkpoint_is_read_by_an_old_script(tmp_path: Path) -> None:
    run_well(tmp_path, str(ROOT / "jobs" / "lenet.py"), env={"FLOWLAUNCH_DRY_RUN": "1"})
    (made,) = (tmp_path / "checkpoints").glob("step-*")
    assert _convert(tmp_path, str(made), "old") == "old"
    script = tmp_path / "logits.py"
    script.write_text(_NEW_LOGITS)
    new = _numbers(run_well(tmp_path, str(script), str(made)))
    assert _numbers(run_legacy_well(tmp_path, _OLD_LOGITS, "old")) == pytest.approx(new, abs=1e-4)


def test_there_and_back_changes_no_byte(tmp_path: Path, old: Path) -> None:
    made = _convert(tmp_path, "old", "checkpoints")
    _convert(tmp_path, made, "again")
    for weight in NETWORKS["lenet"]:
        there = (tmp_path / "again" / weight.old / "out").read_bytes()
        assert there == (old / weight.old / "out").read_bytes(), weight


def test_another_network_is_refused_by_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LegacyError, match=r"it holds a, b"):
        network_of(["b", "a"], "somewhere", old=True)
    assert main(["nowhere", "anywhere"]) == 1
    assert "nowhere is no published checkpoint" in capsys.readouterr().err
