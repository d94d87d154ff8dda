"""The two views of a run: plain lines, and the panel of a terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from launcher.cli.live import LiveView
from launcher.cli.main import show_any_text
from launcher.cli.plain import PlainView
from launcher.cli.view import open_view
from launcher.cli.worker_lines import MAX_BURST
from launcher.collect.checkpoints import Stored
from launcher.collect.reports import Metrics
from launcher.core import state as core
from launcher.wire import events
from tests.unit.test_state import Run

NODES = {0: "n1", 1: "n1", 10: "long"}


def file_of(rank: int, stream: str) -> str:
    return f"logs/rank-{rank}.{stream}.log"


ATTACK = "\x1b[2J\x1b]0;title\x07\r\nsecond"


def test_lines_carry_their_workers_name_and_their_stream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = PlainView(NODES)
    view.on_output(0, "stdout", b"epoch")
    view.on_output(10, "stderr", b"warning\n")
    view.on_output(0, "stdout", b" 1\nhalf")
    view.close()
    shown = capsys.readouterr()
    assert shown.out == "n1:0    | epoch 1\nn1:0    | half\n"
    assert shown.err == "long:10 | warning\n"


def test_json_leaves_stdout_to_the_events(capsys: pytest.CaptureFixture[str]) -> None:
    view = open_view(NODES, as_json=True, file_of=file_of)
    view.on_output(0, "stdout", b"line\n")
    view.on_problem("a problem")
    view.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "flowlaunch | a problem\n"


def test_a_terminal_of_another_alphabet_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    show_any_text()
    view = PlainView(NODES)
    view.on_output(0, "stdout", "Verlust ✓ \xff\n".encode())
    assert raw.getvalue() == b"n1:0    | Verlust \\u2713 \\xff\n"


def test_metrics_are_shown_now_and_then_and_the_last_always(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = PlainView(NODES)
    for step in range(1, 101):
        view.on_metrics(Metrics(0.0, 0, step, 100, {"loss": 0.5}))
        view.on_metrics(Metrics(0.0, 1, step, 100, {"loss": 9.0}))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "flowlaunch | step 1/100  loss 0.5",
        "flowlaunch | step 100/100  loss 0.5",
    ]


def test_the_standing_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    run, view = Run(), PlainView(NODES)
    for node in ("n1", "n2"):
        view.on_state(run.state)
        run.prepare(node)
        view.on_state(run.state)
        view.on_state(run.state)
    assert capsys.readouterr().err == "flowlaunch | 1/2 nodes ready\n"


@pytest.mark.parametrize("where", ["metric name", "metric value", "problem"])
def test_no_word_of_a_node_is_obeyed_by_the_terminal(
    capsys: pytest.CaptureFixture[str], where: str
) -> None:
    view = PlainView(NODES)
    if where == "problem":
        view.on_problem(f"n1: {ATTACK}")
    else:
        values = {ATTACK: 1.0} if where == "metric name" else {"loss": ATTACK}
        view.on_metrics(Metrics(0.0, 0, 1, None, values))
    assert "\x1b" not in capsys.readouterr().err


# On a terminal


def live(nodes: dict[int, str]) -> tuple[LiveView, io.StringIO]:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    return LiveView(nodes, console, file_of), screen


def test_the_panel_shows_nodes_workers_step_and_lines() -> None:
    run = Run()
    run.start()
    run.take("n1", core.WorkerReported(0, core.WorkerPhase.JOINED))
    view, screen = live(run.layout)
    try:
        view.on_state(run.state)
        view.on_metrics(Metrics(0.0, 0, 20, 100, {"loss": 0.5, "images_per_s": 640.0}))
        view.on_output(2, "stdout", b"hello\nhalf")
        view.on_checkpoint(Stored("n1", 7, 2_400_000, 0, Path("c")))
        view.on_tick()
        shown = screen.getvalue()
    finally:
        view.close()
    for words in ("1/3 ranks joined", "n1", "n2", "20/100", "loss 0.5", "2.4 MB"):
        assert words in shown
    assert "half" not in shown
    assert "n2:2 | hello" in screen.getvalue(), "a line waits a moment for others like it"
    assert "half" in screen.getvalue(), "what came without an end is shown at the end"


def test_a_line_in_brackets_is_no_markup() -> None:
    view, screen = live({0: "n1"})
    try:
        view.on_output(0, "stdout", b"[bold]x[/bold] [/] \x1b[2J\n")
        view.on_tick()
        shown = screen.getvalue()
    finally:
        view.close()
    assert "[bold]x[/bold] [/] ^[[2J" in shown


def test_a_flood_of_lines_is_counted_and_not_shown() -> None:
    view, screen = live({0: "n1"})
    try:
        view.on_output(0, "stdout", b"x\n" * (MAX_BURST + 50))
        view.on_tick()
        shown = screen.getvalue()
    finally:
        view.close()
    assert "… 50 lines are not shown; everything is in logs/rank-0.stdout.log" in shown


def test_a_runtime_that_is_built_is_shown_while_the_node_prepares() -> None:
    run = Run({0: "n1"})
    view, screen = live(run.layout)
    try:
        view.on_state(run.state)
        view.on_runtime_progress("n1", events.RuntimeProgress("downloading", 50, 100))
        view.on_tick()
        shown = screen.getvalue()
    finally:
        view.close()
    assert "50" in shown
