"""The three generations of the old API, by small scripts of our own on drawn data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.legacy.material import (
    HERE,
    draw_mnist,
    drawn_photographs,
    floats,
    run_legacy,
    run_legacy_well,
    write_records,
)

OWN = HERE / "own"
pytestmark = [pytest.mark.oneflow, pytest.mark.timeout(600)]


def losses(out: str) -> list[float]:
    return floats(line for line in out.splitlines() if line.startswith("loss"))


def test_typed_functions_train_save_and_read_back(tmp_path: Path) -> None:
    draw_mnist(tmp_path / "mnist.npz", batches=120)
    out = run_legacy_well(tmp_path, OWN / "typed.py", "train")
    assert out.count("the body of train_job runs") == 1
    assert losses(out)[-1] < losses(out)[0] / 2
    assert (tmp_path / "typed_model" / "snapshot_done").is_file()
    assert (tmp_path / "typed_model" / "conv-weight" / "out").stat().st_size == 8 * 25 * 4
    out = run_legacy_well(tmp_path, OWN / "typed.py", "eval")
    assert float(out.split()[-1]) > 0.95, out


def test_steps_are_reported_and_a_dry_run_ends(tmp_path: Path) -> None:
    draw_mnist(tmp_path / "mnist.npz", batches=20)
    env = {"FLOWLAUNCH_REPORT": str(tmp_path / "report"), "FLOWLAUNCH_DRY_RUN": "1"}
    (ended,) = run_legacy(tmp_path, OWN / "typed.py", "train", env=env)
    assert ended.code == 0
    assert "dry run: ended after 5 steps" in ended.err
    assert len(losses(ended.out)) == 5
    lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    reported = [line["values"]["loss"] for line in lines]
    assert reported == pytest.approx(losses(ended.out), abs=1e-6)
    assert not (tmp_path / "typed_model").exists()


def test_two_workers_show_the_script_what_one_shows(tmp_path: Path) -> None:
    draw_mnist(tmp_path / "mnist.npz", batches=20)
    one = tmp_path / "one"
    two = tmp_path / "two"
    for place in (one, two):
        place.mkdir()
        (place / "mnist.npz").symlink_to(tmp_path / "mnist.npz")
    alone = losses(run_legacy_well(one, OWN / "typed.py", "train"))
    ended = run_legacy(two, OWN / "typed.py", "train", workers_count=2, placement="all")
    assert [worker.code for worker in ended] == [0, 0], ended
    assert ended[1].out == "", "only rank 0 prints"
    together = losses(ended[0].out)
    assert len(alone) == len(together) == 20
    assert together == pytest.approx(alone, abs=1e-5)
    names = sorted(path.name for path in (two / "typed_model").iterdir())
    assert names == sorted(path.name for path in (one / "typed_model").iterdir())
    scored = [
        run_legacy_well(place, OWN / "typed.py", "eval", workers_count=count, placement="all")
        for place, count in ((one, 2), (two, 1))
    ]
    assert scored[0] == scored[1]


def test_what_a_script_pins_to_one_device_stays_there(tmp_path: Path) -> None:
    draw_mnist(tmp_path / "mnist.npz", batches=6)
    script = (OWN / "typed.py").read_text().replace("gpu_device_num(1)", "gpu_device_num(2)")
    ended = run_legacy(tmp_path, script, "train", workers_count=2)
    assert [worker.code for worker in ended] == [0, 0], ended
    assert "pins its work to rank 0 of 2 workers" in ended[0].err
    assert ended[0].err.count("no GPU here") == 1
    assert "no GPU here" not in ended[1].err
    assert len(losses(ended[0].out)) == 6


def test_configured_functions(tmp_path: Path) -> None:
    draw_mnist(tmp_path / "mnist.npz", batches=150)
    out = run_legacy_well(tmp_path, OWN / "configured.py").splitlines()
    assert float(out[0].split()[-1]) > 0.95, out
    assert out[1].split()[1] == out[1].split()[2], out


@pytest.mark.parametrize("workers", [1, 2])
def test_records_are_read_and_dealt_out(tmp_path: Path, workers: int) -> None:
    write_records(tmp_path / "records", drawn_photographs(32), parts=4, digits=5)
    out = run_legacy_well(tmp_path, OWN / "oldest.py", "4", workers_count=workers).splitlines()
    table = floats(out[:4])
    assert len(out) == 5
    assert all(0.5 < loss < 6 for loss in table), out
    labels = [int(word.strip("[],")) for word in out[4].split()[1:-1]]
    assert len(labels) == 8
    assert out[4].endswith("(8,)"), out
