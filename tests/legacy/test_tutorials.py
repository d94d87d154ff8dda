"""The tutorials' seven scripts as printed, on MNIST and photographs where a developer has them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.legacy.material import (
    MNIST,
    floats,
    photographs,
    run_legacy_well,
    tutorial_scripts,
    write_records,
)

pytestmark = [pytest.mark.oneflow, pytest.mark.timeout(1500)]
# Of the 12,000 and 30,000 that the scripts ask for.
_BATCHES = {"LEGACY_TEST_BATCHES": "600"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the scripts, and mnist.npz."""
    for name, text in tutorial_scripts().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "mnist.npz").symlink_to(MNIST)
    return tmp_path


@pytest.mark.parametrize("language", ["en", "zh"])
def test_lenet_trains_scores_and_reads_digits(place: Path, language: str) -> None:
    train = place / f"lenet_train_{language}.py"
    out = run_legacy_well(place, train, workers_count=2, placement="all", env=_BATCHES)
    assert out.splitlines()[-1] == "model saved"
    out = run_legacy_well(
        place, place / f"lenet_eval_{language}.py", env={"LEGACY_TEST_BATCHES": "100"}
    )
    accuracy = re.fullmatch(r"accuracy: ([\d.]+)%", out.strip())
    assert accuracy and float(accuracy.group(1)) >= 97.0, out
    right = sum(_read(place, language, digit) == digit for digit in range(10))
    assert right >= 9


def _read(place: Path, language: str, digit: int) -> int:
    """Returns what lenet_test makes of the first such digit of the test set."""
    with np.load(MNIST) as arrays:
        index = int(np.flatnonzero(arrays["y_test"] == digit)[0])
        Image.fromarray(arrays["x_test"][index]).save(place / "9.png")
    # The older script knows one file name only.
    args = ["9.png"] if language == "en" else []
    out = run_legacy_well(place, place / f"lenet_test_{language}.py", *args)
    found = re.fullmatch(r"predict(?:ion)?: ?(\d)", out.strip())
    assert found, out
    return int(found.group(1))


def test_alexnet_prints_its_table(place: Path) -> None:
    write_records(place / "dataset" / "example", photographs(96), parts=8)
    out = run_legacy_well(place, place / "alexnet.py", "-i", "10").splitlines()
    assert out[0].split() == ["iter", "loss", "type", "loss", "value"]
    assert [line.split()[:3] for line in out[1:]] == [
        *([str(step), "train", "loss:"] for step in range(10)),
        ["9", "eval", "loss:"],
    ]
    assert all(np.isfinite(floats(out[1:])))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_two_workers_follow_one_workers_curve(place: Path, language: str) -> None:
    script = (place / f"lenet_train_{language}.py").read_text()
    # All that is changed: every loss is printed, not every twentieth.
    script = script.replace("if i % 20 == 0", "if i % 1 == 0")
    curves = []
    for workers in (1, 2):
        (place / "lenet_models_1").exists() and (place / "lenet_models_1").rename(place / "first")
        out = run_legacy_well(
            place, script, workers_count=workers, placement="all",
            env={"LEGACY_TEST_BATCHES": "20"},
        )  # fmt: skip
        curves.append(floats(out.splitlines()[:-1]))
    assert len(curves[0]) == 20
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
