"""A run's directory here: made once, appended to, never half written."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.paths import RUN_ID, RunPaths, run_id
from launcher.errors import StoreError
from launcher.store.atomic import replace_file
from launcher.store.run_record import RunRecord, runs_directory


@pytest.fixture
def record(tmp_path: Path) -> Iterator[RunRecord]:
    made = RunRecord.create(tmp_path / "deep" / "runs", "lenet", {"job": "x"}, world_size=2)
    yield made
    made.close()


def events(record: RunRecord) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(record.paths.events).read_text().splitlines()]


def test_a_new_run_has_its_plan_and_its_standing(record: RunRecord) -> None:
    assert re.fullmatch(r"lenet-\d{8}-\d{6}-[0-9a-f]{4}", record.run_id)
    assert json.loads(Path(record.paths.plan).read_text()) == {"job": "x"}
    standing = json.loads(Path(record.paths.record).read_text())
    assert (standing["id"], standing["job"], standing["state"]) == (
        record.run_id,
        "lenet",
        "preparing",
    )
    assert standing["world_size"] == 2
    assert {path.name for path in record.top.iterdir()} == {
        "plan.json",
        "run.json",
        "events.jsonl",
        ".lock",
        "logs",
        "checkpoints",
    }


def test_events_are_lines_in_order_and_echoed(record: RunRecord) -> None:
    lines: list[str] = []
    record.echo = lines.append
    record.append("node_connected", node="n1")
    record.append("text", words="ä\n\u2028")
    assert [event["event"] for event in events(record)] == ["node_connected", "text"]
    assert events(record)[1]["words"] == "ä\n\u2028"
    assert [json.loads(line) for line in lines] == events(record)


def test_the_standing_is_never_half_written(record: RunRecord) -> None:
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(json.loads(Path(record.paths.record).read_text())["state"])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        record.update(state=f"{number}" * 2000)
    stop.set()
    reader.join()
    assert seen
    assert json.loads(Path(record.paths.record).read_text())["state"] == "29" * 2000


def test_two_runs_of_one_second_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffixes = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("secrets.token_hex", lambda count: next(suffixes))
    monkeypatch.setattr("time.strftime", lambda form: "20260102-030405")
    made = [RunRecord.create(tmp_path, "job", {}) for _ in range(2)]
    for record in made:
        record.close()
    assert [record.run_id[-4:] for record in made] == ["aaaa", "bbbb"]


@pytest.mark.parametrize("kind", ["file", "dangling link", "file above"])
def test_a_place_that_cannot_hold_runs_is_named(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "runs"
    if kind == "dangling link":
        place.symlink_to(tmp_path / "unmounted" / "disk")
    else:
        place.write_text("x")
    with pytest.raises(StoreError) as caught:
        RunRecord.create(place / "sub" if kind == "file above" else place, "job", {})
    assert "runs" in caught.value.where
    assert "--runs-dir" in caught.value.hint


def test_runs_may_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to("disk")
    record = RunRecord.create(tmp_path / "runs", "job", {})
    record.close()
    assert (tmp_path / "disk" / record.run_id).is_dir()


def test_a_full_disk_is_an_error_with_words(record: RunRecord) -> None:
    record._events.close()
    record._events = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    with pytest.raises(StoreError, match="No space left"):
        record.append("anything")
    record._events.close()
    record._events = Path(record.paths.events).open("ab", buffering=0)  # noqa: SIM115


def test_a_run_whose_directory_was_removed_says_so(record: RunRecord) -> None:
    top = record.top
    (top / "run.json").unlink()
    top.rename(top.with_name("moved"))
    with pytest.raises(StoreError, match="No such file"):
        record.update(state="running")
    top.with_name("moved").rename(top)


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    replace_file(path, b"old")

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("lenet", "lenet"),
        ("my job", "my-job"),
        ("../../etc/x", "etc-x"),
        ("ünï", "n"),
        ("-x-", "x"),
        ("..", "job"),
        ("", "job"),
        ("a\nb", "a-b"),
    ],
)
def test_a_run_id_is_a_plain_file_name(job: str, expected: str) -> None:
    made = run_id(job, "20260102-030405", "a1b2")
    assert made == f"{expected}-20260102-030405-a1b2"
    match = RUN_ID.match(made)
    assert match is not None
    assert match["job"] == expected


def test_where_runs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWLAUNCH_RUNS", "/env")
    assert runs_directory("given") == Path("given")
    assert runs_directory(None) == Path("/env")
    monkeypatch.setenv("FLOWLAUNCH_RUNS", "")
    assert runs_directory(None) == Path("runs")


def test_no_two_names_of_a_run_are_the_same() -> None:
    paths = RunPaths(Path("runs/x"))
    every = [
        paths.record, paths.plan, paths.events, paths.metrics, paths.checkpoints,
        paths.checkpoint(1), paths.arriving(1), paths.checkpoint(123456789),
        paths.log("n", 1, "stdout"), paths.log("n", 1, "stderr"), paths.log("n", 11, "stdout"),
    ]  # fmt: skip
    assert len(set(every)) == len(every)
    assert paths.checkpoint(123456789).name == "step-123456789"
