"""Which run is meant by a word on the command line."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import StoreError, UsageError
from launcher.store import runs as store

FIRST, SECOND, THIRD = (f"lenet-2026010{day}-120000-a1b{day}" for day in (1, 2, 3))


def make_run(runs: Path, run_id: str, started: float, **about: object) -> Path:
    top = runs / run_id
    top.mkdir(parents=True)
    fields = {"id": run_id, "started": started, "state": "ended", **about}
    (top / "run.json").write_text(json.dumps(fields))
    return top


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    top = tmp_path / "runs"
    make_run(top, SECOND, 200.0, name="baseline")
    make_run(top, FIRST, 100.0, name="baseline")
    make_run(top, THIRD, 300.0, name=None)
    (top / ".gitignore").write_text("*\n")
    (top / "not-a-run").mkdir()
    return top


def test_the_newest_comes_first_and_only_runs_are_listed(runs: Path) -> None:
    assert [run.run_id for run in store.list_runs(runs)] == [THIRD, SECOND, FIRST]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (FIRST, FIRST),
        ("lenet-20260102", SECOND),
        ("last", THIRD),
        ("baseline", SECOND),
    ],
)
def test_a_run_is_found_by(runs: Path, wanted: str, found: str) -> None:
    assert store.find_run(runs, wanted).run_id == found


def test_a_run_is_found_by_the_path_of_its_directory(runs: Path) -> None:
    assert store.find_run(runs.parent / "elsewhere", f"{runs / FIRST}/").top == runs / FIRST


def test_a_whole_id_is_meant_though_others_begin_with_it(runs: Path) -> None:
    make_run(runs, f"{FIRST}-20260109-120000-ffff", 400.0)
    assert store.find_run(runs, FIRST).run_id == FIRST


def test_a_name_goes_before_a_beginning(runs: Path) -> None:
    make_run(runs, "other-20260109-120000-ffff", 50.0, name="lenet")
    assert store.find_run(runs, "lenet").run_id.startswith("other")


def test_the_runs_that_an_ambiguous_word_fits_are_named(runs: Path) -> None:
    with pytest.raises(UsageError) as raised:
        store.find_run(runs, "lenet-2026")
    for run_id in (FIRST, SECOND, THIRD):
        assert run_id in raised.value.message


@pytest.mark.parametrize("wanted", ["alexnet", "", "runs/alexnet", "lenet-20260101-120000-a1b1x"])
def test_an_unknown_run_is_a_usage_error_that_names_those_there_are(
    runs: Path, wanted: str
) -> None:
    with pytest.raises(UsageError, match=THIRD):
        store.find_run(runs, wanted)


@pytest.mark.parametrize("make", [True, False])
def test_no_runs_at_all(tmp_path: Path, make: bool) -> None:
    top = tmp_path / "none"
    if make:
        top.mkdir()
    with pytest.raises(UsageError, match="there are no runs in") as raised:
        store.find_run(top, "last")
    assert "--runs-dir" in raised.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_run_is_listed_and_refused_where_it_is_meant(runs: Path, content: bytes) -> None:
    (runs / SECOND / "run.json").write_bytes(content)
    damaged = next(run for run in store.list_runs(runs) if run.run_id == SECOND)
    assert damaged.problem and not damaged.has_ended
    with pytest.raises(StoreError, match=f"{SECOND}/run.json"):
        store.find_run(runs, SECOND)


def test_a_run_is_followed_while_its_lock_is_held(runs: Path) -> None:
    assert not store.find_run(runs, FIRST).is_followed
    with (runs / FIRST / ".lock").open("w") as lock:
        assert not store.find_run(runs, FIRST).is_followed
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert store.find_run(runs, FIRST).is_followed
    assert not store.find_run(runs, FIRST).is_followed


@given(record=st.dictionaries(
    st.sampled_from(["started", "name", "state", "detached"]),
    st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.booleans(),
))  # fmt: skip
def test_whatever_a_record_says_it_can_be_looked_at(record: dict[str, object]) -> None:
    run = store.KnownRun(Path("runs/x"), record)
    assert isinstance(run.started, float)
    assert isinstance(run.name, str)
    assert isinstance(run.has_ended, bool) and isinstance(run.is_detached, bool)
