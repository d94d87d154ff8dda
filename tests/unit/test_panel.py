"""The panel of the live view, drawn into rows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from launcher.cli.board import Board
from launcher.cli.panel import draw, rows_for, spark
from launcher.collect.reports import Metrics
from launcher.core import state as core
from launcher.core.pace import Pace
from launcher.core.usage import GpuUsage, Usage
from launcher.wire import events
from tests.unit.test_state import Run


def board_of(run: Run) -> Board:
    board = Board("lenet-1", run.layout)
    board.state = run.state
    return board


def rows_of(board: Board, width: int = 80, rows: int = 12) -> list[str]:
    return [line.plain for line in draw(board, width, rows, 75.0)]


def trained(values: list[float], **more: float) -> Board:
    run = Run()
    run.start()
    board = board_of(run)
    for step, value in enumerate(values, 1):
        board.report(Metrics(float(step), 0, step, 100, {"loss": value, **more}))
    return board


def test_before_anything_is_known() -> None:
    assert rows_of(Board("lenet-1", {0: "n1"})) == [
        "── connecting lenet-1 " + "─" * 49 + " 00:01:15"
    ]


def test_a_run_that_trains() -> None:
    board = trained([2.0 - step / 50 for step in range(20)], images_per_s=640.0)
    board.usage["n1"] = Usage(cpu=0.5, memory_bytes=100, memory_used_bytes=25, disk_free_bytes=2e9)
    shown = rows_of(board)
    assert shown[0].startswith("── running lenet-1 ─")
    assert shown[0].endswith("0/3 ranks joined  00:01:15")
    assert shown[1].endswith("  step 20/100  20 %  ETA 00:01:20")
    assert shown[1].count("━") == 80 - len("  step 20/100  20 %  ETA 00:01:20")
    assert shown[2].startswith("loss 1.62  ") and shown[2].endswith("  █▇▇▆▆▆▅▅▅▄▄▃▃▃▂▂▂▁▁▁")
    assert shown[3].startswith("images/s 640")
    assert shown[4] == "node  state       cpu  mem  disk free  ranks"
    assert shown[5].startswith("n1    running     50%  25%     2.0 GB  ○○")


def test_gpus_have_columns_where_there_are_any() -> None:
    board = trained([1.0])
    board.usage["n2"] = Usage(gpus=(GpuUsage(0.9, 100.0, 50.0),))
    header, _, with_gpu = rows_of(board)[-3:]
    assert "gpu vram" in header
    assert "90%  50%" in with_gpu


@pytest.mark.parametrize("word", ["nan", "inf", "-inf"])
def test_a_value_that_is_not_finite_is_flagged_for_good(word: str) -> None:
    board = trained([1.0])
    board.report(Metrics(2.0, 1, 7, 100, {"loss": word}))
    board.report(Metrics(3.0, 0, 8, 100, {"loss": 0.5}))
    assert f"! loss was {word} at step 7 on rank 1" in rows_of(board)


def test_the_newest_value_in_words_too() -> None:
    board = trained([1.0])
    board.report(Metrics(2.0, 0, 7, 100, {"loss": "nan"}))
    assert any(row.startswith("loss nan") for row in rows_of(board))


def test_who_is_waited_for_has_a_row_of_its_own() -> None:
    board = trained([1.0])
    board.waiting = "waiting for n2:2 (importing oneflow, 12 s)"
    assert board.waiting in rows_of(board)


def test_the_worst_rank() -> None:
    board = trained([1.0])
    board.pace = Pace(0.5, 2, {0: 0.5, 1: 0.5, 2: 0.75})
    assert "slowest n2:2  0.75 s a step, 50 % over the median of 0.5 s" in rows_of(board)


def test_after_a_restart_progress_begins_where_the_workers_do() -> None:
    board = trained([1.0] * 50)
    board.report(Metrics(60.0, 0, 40, 100, {"loss": 1.0}))
    assert any("step 40/100" in row for row in rows_of(board))


def test_the_slowest_rank_is_how_far_the_run_is() -> None:
    board = trained([1.0] * 50)
    board.report(Metrics(60.0, 2, 30, 100, {}))
    assert any("step 30/100" in row for row in rows_of(board))


def test_a_curve_is_that_of_the_lowest_rank_that_reports_it() -> None:
    board = trained([])
    for rank, value in ((2, 5.0), (1, 3.0), (2, 6.0)):
        board.report(Metrics(1.0, rank, 1, None, {"loss": value}))
    assert board.trends["loss"].value == 3.0


def test_many_nodes_are_one_row_but_for_those_in_trouble() -> None:
    run = Run({rank: f"gpu{rank:03d}" for rank in range(1000)})
    for node in list(run.layout.values()):
        run.prepare(node)
    run.take("gpu007", core.NodeFailed("no disk\nat all", ""))
    board = board_of(run)
    for node in run.layout.values():
        board.usage[node] = Usage(cpu=0.25, memory_bytes=100, memory_used_bytes=50)
    board.usage["gpu500"] = Usage(cpu=0.25, memory_bytes=100, memory_used_bytes=99)
    shown = rows_of(board)
    assert len(shown) <= 12
    assert shown[2].startswith("gpu007") and "no disk at all" in shown[2]
    assert shown[3].startswith("gpu500") and " 99%" in shown[3]
    assert shown[4].startswith("998 nodes") and "cpu 25–25%" in shown[4]


def test_a_runtime_that_is_built() -> None:
    board = board_of(Run())
    board.building["n1"] = events.RuntimeProgress("download", 50, 100)
    assert any(
        "building the OneFlow runtime: download 50 B of 100 B" in row for row in rows_of(board)
    )


@pytest.mark.parametrize("height", [1, 2, 5, 8, 10, 24, 200])
def test_the_panel_leaves_room_for_lines(height: int) -> None:
    assert 1 <= rows_for(height) <= max(1, height - 1)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 200),
    rows=st.integers(1, 20),
    name=st.text(max_size=30),
    values=st.lists(
        st.floats() | st.sampled_from(["nan", "inf", "-inf", "word", None]), max_size=9
    ),
    title=st.text(max_size=40),
)
def test_no_row_is_wider_than_the_terminal_whatever_is_reported(
    width: int, rows: int, name: str, values: list[object], title: str
) -> None:
    board = trained([])
    board.title = title
    for step, value in enumerate(values):
        board.report(Metrics(float(step), step % 3, step, step, {name: value}))
    board.pace = Pace(1e-9, 2, {2: 1e9})
    shown = rows_of(board, width, rows)
    assert len(shown) <= rows
    assert all(cell_len(row) <= width and "\n" not in row for row in shown)
    assert not any("\x1b" in row for row in shown)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [1e308, -1e308, 0.0],
        [math.nan, 1.0, math.inf, 2.0],
        [5.0] * 500,
        [-1e-320, 1e-320],
    ],
)
def test_a_spark_for_any_curve(values: list[float]) -> None:
    board = trained(values)
    for width in (0, 1, 5, 60, 500):
        line = spark(board.trends["loss"], width) if values else ""
        assert len(line) <= width
