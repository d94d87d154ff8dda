"""Who a worker is and what it reports, with and without a launcher."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from launcher.worker import CheckpointError, Context, context

_ENV = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "FLOWLAUNCH_NODE": "gpu2",
    "FLOWLAUNCH_NODE_RANK": "1",
    "FLOWLAUNCH_NNODES": "2",
    "FLOWLAUNCH_RUN_ID": "lenet-1",
    "FLOWLAUNCH_ATTEMPT": "2",
    "FLOWLAUNCH_CHECKPOINT_DIR": "/run/checkpoints",
    "FLOWLAUNCH_RESUME_FROM": "/run/step-00000005",
    "FLOWLAUNCH_DRY_RUN": "1",
}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.jsonl"


def _lines(report: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in report.read_text().splitlines()]


def test_says_what_the_environment_says() -> None:
    w = Context(_ENV)
    assert (w.rank, w.local_rank, w.world_size) == (3, 1, 4)
    assert (w.node, w.node_rank, w.nnodes) == ("gpu2", 1, 2)
    assert (w.run_id, w.attempt, w.dry_run) == ("lenet-1", 2, True)
    assert (w.checkpoint_dir, w.resume_from) == ("/run/checkpoints", "/run/step-00000005")


def test_by_hand_it_is_rank_0_of_1_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*_ENV, "FLOWLAUNCH_REPORT"):
        monkeypatch.delenv(name, raising=False)
    w = context()
    w.report(step=1, total=2, loss=0.5)
    assert (w.rank, w.world_size, w.dry_run, w.resume_from) == (0, 1, False, None)
    assert w.checkpoint_dir == str(tmp_path / "checkpoints")
    assert w.load_checkpoint() is None
    assert list(tmp_path.iterdir()) == []


def test_the_rank_that_oneflow_sets_by_hand_counts_as_0() -> None:
    assert Context({"RANK": "-1", "WORLD_SIZE": "1"}).rank == 0


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "FLOWLAUNCH_ATTEMPT"])
def test_names_the_variable_that_is_no_number(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*'four'"):
        Context({name: "four"})


def test_a_report_is_one_json_line(report: Path) -> None:
    w = Context({"FLOWLAUNCH_REPORT": str(report)})
    before = time.time()
    w.report(step=10, total=600, loss=2.25, epoch=1)
    w.report(accuracy=np.float32(0.5), seen=np.int64(7), tensor=np.array([1.5]))
    first, second = _lines(report)
    assert before <= first.pop("time") <= time.time()  # type: ignore[operator]
    assert first == {
        "kind": "metrics",
        "step": 10,
        "total": 600,
        "values": {"loss": 2.25, "epoch": 1},
    }
    assert second["values"] == {"accuracy": 0.5, "seen": 7, "tensor": 1.5}
    assert "step" not in second


def test_numbers_that_json_lacks_are_words(report: Path) -> None:
    w = Context({"FLOWLAUNCH_REPORT": str(report)})
    w.report(a=math.nan, b=math.inf, c=-math.inf, d=np.float32("nan"))
    assert _lines(report)[0]["values"] == {"a": "nan", "b": "inf", "c": "-inf", "d": "nan"}


def test_a_value_that_is_no_number_is_the_jobs_error(report: Path) -> None:
    with pytest.raises(ValueError, match="low"):
        Context({"FLOWLAUNCH_REPORT": str(report)}).report(loss="low")


def test_a_disk_that_refuses_does_not_end_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w = Context({"FLOWLAUNCH_REPORT": str(tmp_path / "missing" / "report")})
    w.report(loss=1.0)
    w.report(loss=1.0)
    assert capsys.readouterr().err.count("no more reports") == 1


def test_files_of_another_kind_are_not_taken_for_a_state(tmp_path: Path) -> None:
    w = Context({"FLOWLAUNCH_CHECKPOINT_DIR": str(tmp_path)})
    path = w.save_files(lambda top: (Path(top) / "snapshot_done").write_text(""), 3)
    with pytest.raises(CheckpointError, match=r"launcher\.legacy\.convert"):
        w.load_checkpoint(path)
