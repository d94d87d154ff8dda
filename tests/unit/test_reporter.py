"""A worker's reports: each at a human pace, the telling ones beyond it, the last one always."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.agent import last_words
from launcher.wire.report import LAST_MARK, Report, line_of, pack_last, unpack_last
from launcher.worker import Context
from launcher.worker.reporter import SAVED_LINES, Reporter, Window
from tests.support.deadline import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "rank-0.report.log"


@pytest.fixture
def w(report: Path) -> Iterator[Context]:
    made = Context({"FLOWLAUNCH_REPORT": str(report)})
    assert made._reporter is not None
    # What is saved up is all that there is: no report more is kept because a test is slow.
    made._reporter._per_s = 0.0
    yield made
    made._reporter.close()


def lines(report: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in report.read_text().splitlines()]


def floats(report: Path, name: str) -> list[float]:
    return [float(line["values"][name]) for line in lines(report)]


def test_at_a_human_pace_every_report_is_there_at_once(w: Context, report: Path) -> None:
    for step in range(int(SAVED_LINES)):
        w.report(step=step, loss=step * 0.5)
        assert lines(report)[-1]["step"] == step
    assert len(lines(report)) == SAVED_LINES


def test_a_flood_is_thinned_and_its_extremes_and_its_end_are_kept(w: Context, report: Path) -> None:
    values = [math.sin(step / 50) for step in range(20_000)]
    values[7_000], values[12_345], values[15_000] = 99.0, -99.0, math.nan
    for step, value in enumerate(values):
        w.report(step=step, total=20_000, loss=value, lr=0.1)
    wait_until(lambda: lines(report)[-1]["step"] == 19_999, "the end of the window")
    kept = floats(report, "loss")
    assert len(kept) < 1000
    assert max(kept) == 99.0 and min(kept) == -99.0
    assert any(math.isnan(value) for value in kept)
    steps = [line["step"] for line in lines(report)]
    assert steps == sorted(set(steps)), "each once, in order"
    assert all(values[line["step"]] == line["values"]["loss"] for line in lines(report)
               if line["values"]["loss"] != "nan")  # fmt: skip


def test_a_window_ends_by_itself(w: Context, report: Path) -> None:
    for step in range(int(SAVED_LINES) + 1):
        w.report(step=step)
    assert lines(report)[-1]["step"] == SAVED_LINES - 1
    wait_until(lambda: lines(report)[-1]["step"] == SAVED_LINES, "the held report")


def test_what_is_held_back_stands_beside(w: Context, report: Path) -> None:
    for step in range(int(SAVED_LINES) + 5):
        w.report(step=step, total=1000, loss=1.0 / (step + 1), x=math.inf)
    beside = report.with_name(f"{report.name}{LAST_MARK}{os.getpid()}")
    last = unpack_last(beside.read_bytes())
    assert last is not None
    assert (last.step, last.total) == (SAVED_LINES + 4, 1000)
    assert last.values == {"loss": 1.0 / (SAVED_LINES + 5), "x": math.inf}


ENDS = {
    "return": "",
    "os._exit": "os._exit(0)",
    "exception": "raise SystemExit('no')",
    "kill -9": "os.kill(os.getpid(), 9)",
    "abort": "os.abort()",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_last_report_outlives_any_end(report: Path, end: str) -> None:
    code = (
        "import os\nfrom launcher import worker\nw = worker.context()\n"
        f"for step in range(5000): w.report(step=step, loss=step / 7)\n{ENDS[end]}\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FLOWLAUNCH_REPORT": str(report)}
    subprocess.run([sys.executable, "-c", code], env=env, check=False, capture_output=True)
    last_words.add_all(str(report.parent))
    assert lines(report)[-1]["step"] == 4999
    assert lines(report)[-1]["values"] == {"loss": 4999 / 7}
    assert [path.name for path in report.parent.iterdir()] == [report.name]


def test_a_forked_child_reports_for_itself(w: Context, report: Path) -> None:
    for step in range(int(SAVED_LINES) + 5):
        w.report(step=step)
    child = os.fork()
    if child == 0:
        for step in range(1000, 1200):
            w.report(step=step)
        os._exit(0)
    os.waitpid(child, 0)
    wait_until(lambda: SAVED_LINES + 4 in [line["step"] for line in lines(report)], "the parent's")
    last_words.add_all(str(report.parent))
    steps = [line["step"] for line in lines(report)]
    assert steps[-1] == 1199
    assert steps.count(SAVED_LINES + 4) == 1


def test_many_threads_lose_no_line_and_tear_none(w: Context, report: Path) -> None:
    def tell(rank: int) -> None:
        for step in range(2000):
            w.report(step=step, **{f"of_{rank}": float(step)})

    threads = [threading.Thread(target=tell, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert w._reporter is not None
    w._reporter.flush()
    highest = {name: value for line in lines(report) for name, value in line["values"].items()}
    assert highest == {f"of_{rank}": 1999.0 for rank in range(4)}


def test_a_signal_handler_may_report(w: Context, report: Path) -> None:
    """The lock must not be one that its own thread waits for."""
    assert w._reporter is not None
    with w._reporter._lock:
        w.report(step=1)
    assert lines(report)[-1]["step"] == 1


def test_a_descriptor_that_the_job_took_over_is_not_written_to(
    w: Context, report: Path, tmp_path: Path
) -> None:
    for step in range(int(SAVED_LINES) + 5):
        w.report(step=step)
    assert w._reporter is not None
    number = w._reporter._last_fd
    own = os.open(tmp_path / "own", os.O_RDWR | os.O_CREAT)
    os.dup2(own, number)
    os.close(own)
    w.report(step=7000)
    assert (tmp_path / "own").read_bytes() == b""
    assert w._reporter._last_fd != number
    os.close(number)
    w.report(step=7001)


def test_a_number_that_eight_bytes_do_not_hold_is_written_at_once(w: Context, report: Path) -> None:
    for step in range(int(SAVED_LINES)):
        w.report(step=step)
    w.report(step=1, seen=10**400)
    assert lines(report)[-1]["values"]["seen"] == 10**400


def test_more_workers_share_what_the_launcher_can_take() -> None:
    assert Reporter("x", 1)._per_s == Reporter("x", 80)._per_s == 50.0
    assert Reporter("x", 400)._per_s == 10.0
    assert Reporter("x", 100_000)._per_s == 4.0


def test_a_window_keeps_the_reports_as_they_were_said() -> None:
    window = Window(0.0)
    pairs = [(1, 5), (0, 5), (2, math.nan), (1, -math.inf), (1, 9), (1, 5)]
    for step, (a, b) in enumerate(pairs):
        window.add(Report(float(step), step, None, {"a": a, "b": b}))
    assert [one.step for one in window.telling()] == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("value", [1, -2.5, math.nan, math.inf, -math.inf, 2**53, 1e-300])
def test_a_line_and_a_last_word_read_back(value: float) -> None:
    told = Report(1.25, 3, None, {"loss": value, 'odd "näme"': 1.0})
    fields = json.loads(line_of(told))
    assert repr(float(fields["values"]["loss"])) == repr(float(value))
    assert fields["values"]['odd "näme"'] == 1.0
    back = unpack_last(pack_last(told))
    assert back is not None
    assert repr(back) == repr(told._replace(values={"loss": float(value), 'odd "näme"': 1.0}))


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 12, 30])
def test_a_torn_last_word_is_none(cut: int) -> None:
    data = pack_last(Report(1.0, 1, 2, {"loss": 0.5}))
    assert unpack_last(data[:cut]) is None
    assert unpack_last(data[:cut] + b"\xff" * 40) is None


def test_a_last_word_behind_a_torn_line_begins_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "rank-1.report.log"
    path.write_bytes(b'{"kind": "metr')
    (tmp_path / f"{path.name}{LAST_MARK}77").write_bytes(pack_last(Report(1.0, 5, None, {})))
    last_words.add_all(str(tmp_path))
    assert path.read_text().splitlines()[1:] == ['{"kind": "metrics", "time": 1.0, "step": 5}']
