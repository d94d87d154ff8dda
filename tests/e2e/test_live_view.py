"""The view on a real terminal, which tmux plays."""

from __future__ import annotations

import contextlib
import os
import shlex
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


class Terminal:
    """One tmux session of 80 x 24."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

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
    there = Terminal(tmp_path / "tmux")
    env = {**os.environ, "HOME": str(lab.home), "PYTHONPATH": str(ROOT), "PS1": "$ "}
    env.pop("NO_COLOR", None)
    words = ("new-session", "-d", "-x", "80", "-y", "24", "-c", str(lab.top), "sh")
    there.tmux(*words, env=env)
    try:
        yield there
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            there.tmux("kill-server")


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
