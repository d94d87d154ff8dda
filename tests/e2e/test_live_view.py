"""The view on a real terminal, which tmux plays."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.lab import ROOT, Lab

JOB = """
import sys, time
from launcher import worker
w = worker.context()
for step in range(1, 401):
    w.report(step=step, total=400, loss=1.0 / step, images_per_s=640.0)
    if step % 100 == 0:
        print("step", step, "of rank", w.rank)
    time.sleep(0.01)
print("\\x1b]0;owned\\x07\\x1b[2Jlast line of", w.rank)
"""


# A view of a thousand workers, or of fewer, that are only spoken of.
FED = """
import sys, time
from rich.console import Console
from launcher.cli.live import LiveView
from launcher.collect.reports import Metrics
from launcher.core import state as core
from launcher.core.pace import Pace
from launcher.core.usage import Usage
from tests.unit.test_state import Run
workers, ending = int(sys.argv[1]), sys.argv[2]
nodes = {rank: f"gpu{rank // 8 + 1:03d}" for rank in range(workers)}
run = Run(nodes)
run.start()
for rank, node in nodes.items():
    run.take(node, core.WorkerReported(rank, core.WorkerPhase.JOINED))
view = LiveView(nodes, Console(highlight=False), lambda rank, stream: "logs", "fed")
view.on_state(run.state)
view.on_pace(Pace(0.5, 3, {3: 0.75}))
try:
    for step in range(1, 3001):
        for rank in range(workers):
            values = {"loss": 100.0 / step, "images_per_s": 640.0} if rank == 0 else {}
            view.on_metrics(Metrics(1000.0 + step, rank, step, 3000, values))
        for node in dict.fromkeys(nodes.values()):
            view.on_usage(node, Usage(cpu=0.5, disk_free_bytes=9e9 if node != "gpu002" else 1e6))
        if step % 10 == 0:
            view.on_output(step % workers, "stdout", b"line %d\\n" % step)
        view.on_tick()
        if step == 40 and ending == "exception":
            raise RuntimeError("a defect")
        time.sleep(0.02)
finally:
    view.close()
"""


class Terminal:
    """One tmux session of 80 x 24."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    @classmethod
    @contextlib.contextmanager
    def opened(cls, lab: Lab, socket: Path) -> Iterator[Terminal]:
        """Opens a shell in the lab's directory."""
        there = cls(socket)
        env = {**os.environ, "HOME": str(lab.home), "PYTHONPATH": str(ROOT), "PS1": "$ "}
        env.pop("NO_COLOR", None)
        words = ("new-session", "-d", "-x", "80", "-y", "24", "-c", str(lab.top), "sh")
        there.tmux(*words, env=env)
        try:
            yield there
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                there.tmux("kill-server")

    def tmux(self, *words: str, **more: object) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), "-f", "/dev/null", *words],
            capture_output=True, text=True, check=True, **more,  # type: ignore[call-overload]
        )  # fmt: skip
        return str(done.stdout)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def cursor_is_visible(self) -> bool:
        return self.tmux("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def title(self) -> str:
        return self.tmux("display-message", "-p", "#{pane_title}")

    def type(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def shows(self, words: str, limit_s: float = 30.0) -> str:
        """Waits until the screen has these words, and returns it."""

        def seen() -> str:
            screen = self.screen()
            return screen if words in screen else ""

        return wait_until(seen, f"{words!r} on the screen", limit_s)


@pytest.fixture
def terminal(lab: Lab, tmp_path: Path, runtime_python: Path) -> Iterator[Terminal]:
    """A shell in the lab's directory."""
    lab.manifest(runtime_python, [{"name": "this", "transport": "local", "slots": 2}])
    lab.write("job.py", JOB)
    command = shlex.join([sys.executable, "-m", "launcher.cli.main", "run", "job.py"])
    lab.write("go", f"{command}; echo code $?\n")
    with Terminal.opened(lab, tmp_path / "tmux") as there:
        yield there


@pytest.fixture
def fed(lab: Lab, tmp_path: Path) -> Iterator[Terminal]:
    """A shell where `sh go WORKERS ENDING` shows workers that are only spoken of."""
    lab.write("fed.py", FED)
    go = f'{shlex.quote(sys.executable)} fed.py "$@" & echo $! > pid; wait $!; echo "code $?"\n'
    lab.write("go", go)
    with Terminal.opened(lab, tmp_path / "tmux") as there:
        yield there


def test_it_shows_how_a_run_goes_and_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    title = terminal.title()
    terminal.type("sh go", "Enter")
    screen = terminal.shows("loss 0.0")
    assert "running" in screen
    assert "images/s 640" in screen
    assert "/400" in screen
    screen = terminal.shows("code 0")
    assert "this:0 | step 100 of rank 0" in screen
    # What would have set a title and cleared the screen is shown instead.
    assert "this:1 | ^[]0;owned^G^[[2Jlast line of 1" in screen
    assert terminal.title() == title
    assert terminal.cursor_is_visible()
    assert "exit 0: every worker ended with 0" in screen
    terminal.type("echo typed", "Enter")
    terminal.shows("\ntyped")


def test_ctrl_c_at_the_keyboard(terminal: Terminal, lab: Lab) -> None:
    terminal.type("sh go", "Enter")
    terminal.shows("loss")
    terminal.type("C-c")
    screen = terminal.shows("exit 130: interrupted")
    assert "Traceback" not in screen
    assert terminal.cursor_is_visible()
    lab.no_survivors()


def test_a_thousand_workers_fit_one_screen(fed: Terminal) -> None:
    fed.type("sh go 1000 none", "Enter")
    fed.shows("ETA")
    screen = fed.shows("line ")
    assert "1000/1000 ranks joined" in screen
    assert "step " in screen and "/3000" in screen and "ETA" in screen
    assert "images/s 640" in screen
    assert "slowest gpu001:3  0.75 s a step, 50 % over the median of 0.5 s" in screen
    # The node whose disk is nearly full stands alone, the others are one row.
    (alone,) = [line for line in screen.splitlines() if line.startswith("gpu002 ")]
    assert "1.0 MB" in alone
    assert any("cpu 50–50%" in line and "running" in line for line in screen.splitlines())
    assert len(screen.rstrip().splitlines()) < 24


def test_it_goes_with_the_size_of_the_terminal(fed: Terminal) -> None:
    fed.type("sh go 2 none", "Enter")
    fed.shows("line 30")
    for width, height in ((47, 14), (120, 40), (80, 24)):
        fed.tmux("resize-window", "-x", str(width), "-y", str(height))
        screen = wait_until(lambda: _whole(fed.screen()), f"one panel at {width} x {height}")
        assert max(map(len, screen.splitlines())) <= width


def _whole(screen: str) -> str:
    """Returns a screen on which the panel stands once, without rests of an earlier one."""
    rows = screen.splitlines()
    marks = ("── running", "images/s", "step ")
    once = all(sum(mark in row for row in rows) == 1 for mark in marks)
    numbers = [row.split()[-1] for row in rows if "| line " in row]
    return screen if once and len(numbers) == len(set(numbers)) and numbers else ""


@pytest.mark.parametrize("ending", ["exception", "TERM", "HUP", "KILL"])
def test_the_terminal_is_as_it_was_after_any_end(fed: Terminal, lab: Lab, ending: str) -> None:
    fed.type("stty -a > before", "Enter")
    fed.type("sh go 2 " + ending, "Enter")
    if ending != "exception":
        fed.shows("line 10")
        os.kill(int((lab.top / "pid").read_text()), getattr(signal, f"SIG{ending}"))
    screen = fed.shows("code ")
    assert ("a defect" in screen) == (ending == "exception")
    assert fed.cursor_is_visible()
    fed.type("stty -a > after; echo ty''ped", "Enter")
    fed.shows("typed")
    assert (lab.top / "before").read_text() == (lab.top / "after").read_text()
