"""What `ps` and `status` read of a run's files, whole or torn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.cli import run_view
from launcher.core.paths import RunPaths
from launcher.store import run_history
from launcher.store.runs import KnownRun


@pytest.fixture
def top(tmp_path: Path) -> Path:
    made = tmp_path / "job-20260101-120000-a1b2"
    (made / "checkpoints").mkdir(parents=True)
    (made / "events.jsonl").touch()
    return made


def test_the_newest_report_of_rank_0_is_shown(top: Path) -> None:
    rows = [(0, 1), (1, 1), (0, 2), (1, 3)]
    lines = [json.dumps({"time": 1.0, "rank": rank, "step": step}) for rank, step in rows]
    (top / "metrics.jsonl").write_text("\n".join(lines) + '\n{"rank": 0, "st')
    found = run_history.last_metrics(RunPaths(top))
    assert found is not None and found["step"] == 2


@pytest.mark.parametrize("data", [None, b"", b"\xff\n", b"[1]\n"])
def test_a_run_that_reported_nothing(top: Path, data: bytes | None) -> None:
    if data is not None:
        (top / "metrics.jsonl").write_bytes(data)
    assert run_history.last_metrics(RunPaths(top)) is None


def test_workers_stand_as_the_last_event_has_it(top: Path) -> None:
    events = [
        {"event": "worker_started", "node": "n1", "rank": 0},
        {"event": "worker_started", "node": "n1", "rank": 1},
        {"event": "worker_reported", "node": "n1", "rank": 1, "phase": "joined"},
        {"event": "worker_exited", "node": "n1", "rank": 0, "exit_code": None, "signal": 9},
        {"event": "run_phase_changed", "phase": "running"},
    ]
    (top / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in events) + "{")
    recorded = {"0": {"node": "n1", "state": "waiting"}, "2": {"node": "n2", "state": "waiting"}}
    found = run_history.workers(RunPaths(top), recorded)
    assert [found[rank]["state"] for rank in (0, 1, 2)] == ["exited", "joined", "waiting"]
    assert (found[0]["exit_code"], found[0]["signal"]) == (None, 9)


@pytest.mark.parametrize(
    ("record", "followed", "word"),
    [
        ({"state": "running"}, True, "running"),
        ({"state": "running"}, False, "abandoned"),
        ({"state": "running", "detached": True}, False, "detached"),
        ({"state": "ended", "exit_code": 0}, False, "done"),
        ({"state": "ended", "exit_code": 130, "stop_reason": "stopped"}, False, "stopped"),
        ({"state": "ended", "exit_code": 137}, False, "failed (137)"),
    ],
)
def test_a_run_in_a_word(top: Path, record: dict[str, object], followed: bool, word: str) -> None:
    [row] = run_view.listed([KnownRun(top, record, "", followed)], 100.0)
    assert row["state"] == word


def test_a_thousand_workers_are_told_of_in_few_rows(
    top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = {
        str(rank): {"node": f"n{rank // 8}", "state": "joined" if rank else "importing oneflow"}
        for rank in range(1000)
    }
    told = run_view.described(KnownRun(top, {"state": "running", "workers": workers}), 100.0)
    run_view.show_status(told)
    shown = capsys.readouterr().out
    assert "1-999" in shown and "joined" in shown
    assert len(shown.splitlines()) < 12
