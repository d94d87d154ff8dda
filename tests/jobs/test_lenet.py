"""LeNet from its first step to reading a picture, on one worker and on several."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from jobs import drawn
from tests.jobs.workers import ROOT, run_job, run_well

pytestmark = pytest.mark.oneflow

_LENET = str(ROOT / "jobs" / "lenet.py")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An mnist.npz of 1,000 and 210 drawn digits."""
    train, test = drawn.digits(1000, 1), drawn.digits(210, 2)
    path = tmp_path_factory.mktemp("data") / "mnist.npz"
    np.savez(path, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small: str) -> Path:
    """Where two workers trained for two epochs; tests only read it."""
    place = tmp_path_factory.mktemp("trained")
    out = run_well(
        place, _LENET, "--data", small, "--epochs", "2", workers=2,
        env={"FLOWLAUNCH_REPORT": str(place / "report")},
    )  # fmt: skip
    (place / "stdout").write_text(out)
    return place


def _losses(out: str) -> list[float]:
    return [float(text) for text in re.findall(r"loss ([\d.]+)", out)]


def test_two_workers_train_and_say_how_it_goes(trained: Path) -> None:
    out = (trained / "stdout").read_text()
    assert re.search(r"epoch 1 step 10/20 loss \d+\.\d+ \d+ images/s", out) is None
    assert re.search(r"epoch 2 step 20/20 loss \d+\.\d+ \d+ images/s", out)
    assert re.findall(r"epoch (\d) test accuracy: [\d.]+% \(\d+ of (\d+)\)", out) == [
        ("1", "210"),
        ("2", "210"),
    ]
    names = [path.name for path in (trained / "checkpoints").iterdir()]
    assert sorted(names) == ["step-00000010", "step-00000020"]


def test_reports_carry_loss_speed_epoch_and_accuracy(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "report").read_text().splitlines()]
    values: dict[str, float] = {}
    for line in lines:
        values.update(line.get("values", {}))
    assert {"loss", "images_per_s", "epoch", "accuracy"} <= set(values)
    assert {line["total"] for line in lines if line["kind"] == "metrics"} == {20}
    published = [line["step"] for line in lines if line["kind"] == "checkpoint"]
    assert published == [10, 20]


def test_eval_finds_the_accuracy_of_training_on_any_number_of_workers(
    trained: Path, small: str, tmp_path: Path
) -> None:
    said = (trained / "stdout").read_text()
    right = int(re.findall(r"\((\d+) of 210\)", said)[-1])
    for workers in (1, 3):
        out = run_well(
            tmp_path, _LENET, "eval", "--checkpoint", str(trained), "--data", small, "--confusion",
            workers=workers,
        )  # fmt: skip
        assert f"accuracy: {right / 210:.1%}\n" in out
        rows = [[int(word) for word in line.split()[1:]] for line in out.splitlines()[-10:]]
        assert np.sum(rows) == 210
        assert np.trace(rows) == right


def test_predict_reads_pictures_and_names_what_is_none(trained: Path, tmp_path: Path) -> None:
    images, _ = drawn.digits(2, seed=5)
    for number, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        image.save(tmp_path / f"white{number}.png")
        ImageOps.invert(image.resize((140, 140))).save(tmp_path / f"black{number}.jpg")
    (tmp_path / "note.png").write_text("no picture")
    names = ["white0.png", "note.png", "white1.png", "black0.jpg", "black1.jpg", "none.png"]
    (done,) = run_job(tmp_path, _LENET, "predict", "--checkpoint", str(trained), *names)
    assert done.code == 66
    read = re.findall(r"^(\w+\.\w+): (\d) \((0\.\d{3}|1\.000)\)$", done.out, re.MULTILINE)
    assert [name for name, _, _ in read] == [name for name in names if name[0] in "wb"]
    assert "note.png: no image" in done.err
    assert "none.png: no such file" in done.err


def test_a_run_that_goes_on_ends_as_one_that_was_never_stopped(tmp_path: Path, small: str) -> None:
    same = ("--data", small, "--dropout", "0", "--momentum", "0.5", "--lr", "0.02")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for place in (whole, resumed):
        place.mkdir()
    straight = run_well(whole, _LENET, *same, "--epochs", "2")
    env = {"FLOWLAUNCH_RESUME_FROM": str(whole / "checkpoints" / "step-00000010")}
    out = run_well(resumed, _LENET, *same, "--epochs", "2", env=env)
    assert "going on after step 10 of 20" in out
    assert _losses(out)[-1] == pytest.approx(_losses(straight)[-1], rel=1e-6)
    assert [path.name for path in (resumed / "checkpoints").iterdir()] == ["step-00000020"]
    (other,) = run_job(resumed, _LENET, *same, "--batch-size", "50", env=env)
    assert (other.code, "--batch-size 100" in other.err) == (70, True)


_CURVE = """
import sys
from launcher import worker
from jobs import mnist
from jobs.lenet import DigitSource
w = worker.context()
digits = DigitSource(mnist.load(sys.argv[1]).train)
import oneflow as flow
from jobs.models import lenet
from jobs.training import Settings, Trainer
batch, dtype = int(sys.argv[3]), getattr(flow, sys.argv[4])
class Source:
    count = digits.count
    def batches(self, order):
        for images, labels in digits.batches(order):
            yield images.to(dtype), labels
settings = Settings(batch, batch * 1e-3, mode=sys.argv[2])
trainer = Trainer(w, lambda: lenet(dropout=0, seed=0).to(dtype), Source(), settings)
losses = [step.loss() for step in trainer.steps(20)]
trainer.check_weights()
if w.rank == 0:
    print(*losses)
"""


def _curve(place: Path, data: str, workers: int, mode: str, batch: int, dtype: str) -> list[float]:
    argv = ("-c", _CURVE, data, mode, str(batch), dtype)
    return [float(word) for word in run_well(place, *argv, workers=workers).split()[-20:]]


@pytest.mark.parametrize("batch", [100, 10])
def test_the_loss_curve_does_not_depend_on_the_number_of_workers(
    tmp_path: Path, small: str, batch: int
) -> None:
    """Also where the shares are unequal: a batch of 10 on 3 workers would show wrong weights.

    In float64, where all 20 steps agree to rounding. In float32 a rounding turns one ReLU of
    millions over within some steps, which moves the loss by 1e-5 and more.
    """
    alone = _curve(tmp_path, small, 1, "eager", batch, "float64")
    for workers in (2, 3, 4):
        curve = _curve(tmp_path, small, workers, "eager", batch, "float64")
        assert curve == pytest.approx(alone, rel=1e-12), workers


@pytest.mark.parametrize("batch", [100, 10])
def test_the_loss_curve_of_float32_agrees_at_first(tmp_path: Path, small: str, batch: int) -> None:
    """OneFlow's nn.Graph has no SGD in float64 on a CPU."""
    alone = _curve(tmp_path, small, 1, "eager", batch, "float32")
    for mode in ("eager", "graph"):
        curve = _curve(tmp_path, small, 3, mode, batch, "float32")
        assert curve[:3] == pytest.approx(alone[:3], rel=2e-6), mode
        assert curve == pytest.approx(alone, rel=5e-2), mode


_DIFFERENT = """
import oneflow as flow
from jobs import command, weights
def main(argv):
    rank = flow.env.get_rank()
    weights.check_same([flow.ones(3)], 1)
    weights.check_same([flow.ones(3) * (1.0 if rank != 1 else 1.0000001)], 7)
    return 0
command.run(main)
"""


def test_ranks_that_differ_in_the_last_bit_are_named_on_every_rank(tmp_path: Path) -> None:
    for ended in run_job(tmp_path, "-c", _DIFFERENT, workers=3):
        assert ended.code == 70
        assert "at step 7 these ranks hold other weights than rank 0: 1\n" in ended.err


def test_a_dry_run_takes_a_few_steps(tmp_path: Path, small: str) -> None:
    out = run_well(tmp_path, _LENET, "--data", small, env={"FLOWLAUNCH_DRY_RUN": "1"})
    assert "step 5/5" in out
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["--data", "none.npz"], 66, "--data none.npz: no such file or folder"),
        (["--batch-size", "1"], 64, "a global batch of 1 leaves some of 2 workers"),
        (["--batch-size", "0"], 64, "expected a whole number from 1 on"),
        (["--lr", "nan"], 64, "expected a number above 0"),
        (["eval", "--checkpoint", "none"], 66, "no checkpoint in none"),
        (["predict"], 64, "IMAGE"),
    ],
)
def test_wrong_input_ends_in_one_line_before_the_rendezvous(
    tmp_path: Path, argv: list[str], code: int, says: str
) -> None:
    """One of two workers alone: it would wait for ever once it imported oneflow."""
    env = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    (done,) = run_job(tmp_path, _LENET, *argv, env=env)
    assert done.code == code
    assert says in done.err
    assert "Traceback" not in done.err


def test_a_harmed_checkpoint_is_told(trained: Path, tmp_path: Path, small: str) -> None:
    out = run_well(tmp_path, _LENET, "--data", small, env={"FLOWLAUNCH_DRY_RUN": "1"})
    assert out
    victim = next((tmp_path / "checkpoints").rglob("out"))
    victim.write_bytes(b"x" + victim.read_bytes()[1:])
    (done,) = run_job(tmp_path, _LENET, "eval", "--data", small)
    assert done.code == 66
    assert "sha256 differs" in done.err
    assert "Traceback" not in done.err
