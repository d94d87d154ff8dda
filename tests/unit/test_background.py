"""Work beside the training: one piece at a time, and its failure ends the process with 1."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from launcher.worker.background import Background

ROOT = Path(__file__).resolve().parents[2]


def test_the_next_piece_waits_for_the_one_before() -> None:
    background, go, said = Background(), threading.Event(), []
    background.start(lambda: (go.wait(10), said.append("first")))
    # Nothing is said before it may go on, whatever else happens here.
    assert said == []
    go.set()
    background.start(lambda: said.append("second"))
    background.wait()
    assert said == ["first", "second"]


def test_what_it_raised_is_raised_once_by_the_next_call() -> None:
    background = Background()
    background.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        background.start(lambda: None)
    background.wait()


@pytest.mark.parametrize(("work", "code"), [("1 / 0", 1), ("print('done')", 0)])
def test_the_process_waits_and_ends_with_1_where_the_last_one_failed(work: str, code: int) -> None:
    program = (
        "import time; from launcher.worker.background import Background\n"
        f"def work(): time.sleep(0.2); {work}\n"
        "Background().start(work); print('trained')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout.startswith("trained\n")
    assert ("done" in done.stdout) == (code == 0)
    assert ("ZeroDivisionError" in done.stderr) == (code == 1)
