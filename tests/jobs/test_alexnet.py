"""AlexNet: the tutorial's options and table, on OFRecord parts that need not divide."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import alexnet, ofrecord
from tests.jobs.workers import ROOT, run_job, run_well

pytestmark = pytest.mark.oneflow

_ALEXNET = str(ROOT / "jobs" / "alexnet.py")
_ROW = re.compile(r"^ {0,11}(\d+) {2,4}(train|eval) loss: +(\d+\.\d{10}|nan|inf)$", re.MULTILINE)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """64 drawn shapes in three parts."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    alexnet.draw(folder, seed=1)
    ofrecord.repart(folder, 3)
    return str(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes: str) -> tuple[Path, str]:
    """Where two workers took three steps, and what was printed."""
    place = tmp_path_factory.mktemp("trained")
    argv = ["-i", "3", "-t", shapes, "-save", "models", "--batch-size", "6", "--eval-every", "2"]
    return place, run_well(place, _ALEXNET, *argv, workers=2)


def test_prints_the_tutorials_table_and_scores_every_image(trained: tuple[Path, str]) -> None:
    place, out = trained
    assert "        iter     loss type    loss value\n" in out
    rows = [(number, kind) for number, kind, _ in _ROW.findall(out)]
    assert rows == [("0", "train"), ("1", "train"), ("1", "eval"), ("2", "train")]
    assert re.search(r"evaluated 64 images: loss [\d.]+, top-1 [\d.]+%, top-5 [\d.]+%", out)
    assert [path.name for path in (place / "models").iterdir()] == ["step-00000003"]


def test_loads_what_two_workers_saved_on_one(
    trained: tuple[Path, str], shapes: str, tmp_path: Path
) -> None:
    argv = ["-i", "1", "-t", shapes, "--batch-size", "6", "--lr", "1e-12"]
    models = str(trained[0] / "models")
    out = run_well(tmp_path, _ALEXNET, *argv, "-load", models)
    score = re.findall(r"evaluated.*", trained[1])[0]
    assert re.findall(r"evaluated.*", out)[0] == score


def test_the_tutorials_weights_overflow_as_they_did(tmp_path: Path) -> None:
    argv = ["-i", "2", "--init", "tutorial", "--batch-size", "2", "--lr", "1e-5"]
    env = {"FLOWLAUNCH_DRY_RUN": "1"}
    out = run_well(tmp_path, _ALEXNET, *argv, env=env)
    assert "drawn shapes" in out
    first = _ROW.findall(out)[0][2]
    assert float(first) > 1e15


def test_on_three_workers_in_a_graph_as_on_one_in_eager_mode(shapes: str, tmp_path: Path) -> None:
    """Seven images on three workers: unequal shares, and parts that do not divide."""
    argv = ["-t", shapes, "--batch-size", "7", "--dropout", "0", "--lr", "1e-4"]
    env = {"FLOWLAUNCH_DRY_RUN": "1"}
    losses = []
    for workers, mode in ((1, "eager"), (3, "graph")):
        place = tmp_path / mode
        place.mkdir()
        out = run_well(place, _ALEXNET, *argv, "--mode", mode, workers=workers, env=env)
        losses.append([float(value) for _, _, value in _ROW.findall(out)])
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["-g", "8"], 64, "`slots: N` in cluster.yaml"),
        (["-m"], 64, "`nodes:` in cluster.yaml"),
        (["-n", "1.2.3.4,1.2.3.5"], 64, "`nodes:` in cluster.yaml"),
        (["-t", "none"], 66, "none: no such folder; OFRecord parts are made with"),
        (["-load", "none"], 66, "no checkpoint in none"),
        (["-i", "0"], 64, "expected a whole number from 1 on"),
        (["--batch-size", "1"], 64, "leaves some of 2 workers"),
    ],
)
def test_wrong_input_ends_in_one_line_before_the_rendezvous(
    tmp_path: Path, argv: list[str], code: int, says: str
) -> None:
    """One of two workers alone: it would wait for ever once it imported oneflow."""
    env = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    (done,) = run_job(tmp_path, _ALEXNET, *argv, env=env)
    assert done.code == code
    assert says in done.err
    assert "Traceback" not in done.err


def test_float16_without_a_gpu_is_an_error(tmp_path: Path) -> None:
    argv = ["--dtype", "float16", "--mode", "graph"]
    (done,) = run_job(tmp_path, _ALEXNET, *argv, env={"CUDA_VISIBLE_DEVICES": ""})
    assert (done.code, "needs a GPU" in done.err) == (64, True)


def test_a_gpu_that_is_promised_but_not_there_is_an_error(tmp_path: Path) -> None:
    (done,) = run_job(tmp_path, _ALEXNET, env={"CUDA_VISIBLE_DEVICES": "63"})
    assert (done.code, "given GPU 63" in done.err) == (70, True)


_DECODE = """
import sys
from pathlib import Path
from jobs.photographs import Photographs
import numpy as np
batch = np.arange(4)
images, labels = next(Photographs(Path(sys.argv[1]), 1001).batches(iter([batch])))
np.savez(sys.argv[2], images=images.numpy(), labels=labels.numpy())
"""


def test_photographs_are_decoded_resized_and_centred_as_the_tutorial_says(tmp_path: Path) -> None:
    """Against Pillow's decoder, on smooth pictures of four sizes, one of them grey."""
    pictures = tmp_path / "images"
    pictures.mkdir()
    wanted = []
    for number, size in enumerate([(300, 200), (256, 341), (227, 227), (500, 375)]):
        ramp = np.mgrid[0 : size[1], 0 : size[0]].astype(float)
        ramp = ramp[0] / size[1] * 120 + ramp[1] / size[0] * 100
        colour = np.stack([ramp, 255 - ramp, ramp / 2 + number * 20], axis=2).astype(np.uint8)
        image = Image.fromarray(colour)
        image = image.convert("L") if number == 3 else image
        image.save(pictures / f"{number}.jpg", quality=95)
        small = Image.open(pictures / f"{number}.jpg").convert("RGB").resize((227, 227))
        wanted.append(np.asarray(small, float).transpose(2, 0, 1))
    rows = "".join(f"{number}.jpg,{number * 7}\n" for number in range(4))
    (tmp_path / "labels.csv").write_text("file,label\n" + rows)
    ofrecord.make(pictures, tmp_path / "labels.csv", 1, tmp_path / "set", skip_bad=False)
    run_well(tmp_path, "-c", _DECODE, str(tmp_path / "set"), "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        images, labels = found["images"], found["labels"]
    assert labels.tolist() == [0, 7, 14, 21]
    mean = np.array([123.68, 116.78, 103.94])[:, None, None]
    assert images.shape == (4, 3, 227, 227)
    assert np.abs(images - (np.stack(wanted) - mean)).mean() < 1.5
