"""What is said of a run: the code, its reason and the first failure agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.cli import summary
from launcher.collect.checkpoints import Stored
from launcher.collect.reports import Metrics
from launcher.core import state as core
from launcher.core.blame import Raised
from launcher.run.following import Ending
from launcher.wire import events as wire
from tests.unit.test_state import Run

TRACEBACK = (
    b"warming up\nTraceback (most recent call last):\n"
    b'  File "job.py", line 3, in <module>\n    1/0\nZeroDivisionError: division by zero\n'
)


def ending(run: Run, tail: bytes = b"", *stored: Stored) -> Ending:
    return Ending(run.code, run.state, tail, stored, {}, 12.34)


def failed(code: int | None = 1, signal: int = 0) -> Run:
    run = Run()
    run.start()
    run.exit(2, code, signal)
    run.exit(0, None, core.SIGTERM, clock=2.0)
    run.exit(1, None, core.SIGTERM, clock=2.0)
    run.stopped()
    run.complete()
    return run


def test_the_reason_names_rank_node_and_exception() -> None:
    end = ending(failed(), TRACEBACK)
    assert summary.reason(end) == (
        "rank 2 on n2 ended with exit code 1 (ZeroDivisionError: division by zero)"
    )
    lines = summary.failure(end)
    assert lines[0] == "rank 2 on n2 failed first:"
    assert lines[-1] == "  | ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("signal", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (6, "SIGABRT"), (99, "signal 99")]
)
def test_a_signal_is_named(signal: int, name: str) -> None:
    assert summary.reason(ending(failed(None, signal))) == f"rank 2 on n2 was ended by {name}"


def test_a_failure_without_words_says_so() -> None:
    assert summary.failure(ending(failed(3)))[1] == "  | it wrote nothing to stderr"
    assert summary.reason(ending(failed(3), b"no traceback\n")).endswith("exit code 3")


def test_an_exit_code_that_looks_like_a_signal_is_told_apart() -> None:
    run = failed(137)
    assert run.code == 137
    assert summary.reason(ending(run)).endswith(
        "exit code 137, which it chose itself: no signal ended it"
    )


def test_the_reported_exception_goes_before_the_end_of_stderr() -> None:
    run = Run()
    run.start()
    trace = tuple(TRACEBACK.decode().splitlines()[1:])
    raised = Raised("ZeroDivisionError", "ZeroDivisionError: division by zero", trace)
    run.take("n2", core.WorkerRaised(2, raised))
    facts = wire.WorkerDiagnosed(2, 0, b'["the disk of /tmp is full: 0 kB are free\\u001b[2J"]')
    run.take("n2", facts)
    run.exit(2, 1)
    run.stopped()
    end = ending(run, b"noise of a library\n")
    assert summary.reason(end).endswith("(ZeroDivisionError: division by zero)")
    lines = summary.failure(end)
    assert lines[1] == "  | Traceback (most recent call last):"
    assert lines[-2:] == [
        "  | ZeroDivisionError: division by zero",
        "  n2: the disk of /tmp is full: 0 kB are free^[[2J",
    ]
    assert not any("noise" in line for line in lines)


def test_what_the_node_knows_stands_behind_the_signal() -> None:
    run = Run()
    run.start()
    run.take("n2", wire.WorkerDiagnosed(2, 0, b'["out of memory: the kernel ended process 7"]'))
    run.exit(2, None, 9)
    run.stopped()
    assert summary.reason(ending(run)) == (
        "rank 2 on n2 was ended by SIGKILL (out of memory: the kernel ended process 7)"
    )


def test_only_the_end_of_a_long_stderr_is_shown_and_never_obeyed() -> None:
    tail = b"".join(b"line %d\n" % i for i in range(100)) + b"\x1b[2Jlast\n"
    lines = summary.failure(ending(failed(), tail))
    assert len(lines) == 1 + summary.TAIL_LINES
    assert lines[-1] == "  | ^[[2Jlast"


def test_nodes_that_failed_are_all_named_with_their_hints() -> None:
    run = Run()
    run.take("n1", core.NodeFailed("no login", "add a key"))
    run.take("n2", wire.NodeUnusable("no_python", "no python", "install it"))
    end = ending(run)
    assert end.exit_code == 69
    assert summary.reason(end) == "cannot use n1, n2"
    assert summary.failure(end) == [
        "n1: no login",
        "  hint: add a key",
        "n2: no python",
        "  hint: install it",
    ]


def test_ctrl_c_names_no_rank() -> None:
    run = Run()
    run.start()
    run.take("", core.Interrupted())
    run.exit(0, 1)
    run.stopped()
    run.complete()
    end = ending(run, TRACEBACK)
    assert end.exit_code == 130
    assert summary.reason(end) == "interrupted; the workers were stopped first"
    assert not any("failed first" in line for line in summary.failure(end))


def test_what_is_not_here_is_named() -> None:
    run = Run({0: "n1"})
    run.start()
    run.exit(0)
    run.stopped()
    run.take("n1", core.LinkLost("cut"))
    end = ending(run)
    assert end.exit_code == 74
    assert summary.reason(end) == "the job ended well, but not everything is here"
    assert "missing: n1: rank 0: the end of its stdout" in summary.failure(end)


def test_a_good_end() -> None:
    run = Run()
    run.start()
    run.all_end_well()
    stored = [Stored("n1", step, 2_400_000, 0, Path(f"c/step-{step}")) for step in (3, 1)]
    end = ending(run, b"", *stored)
    assert summary.failure(end) == []
    assert summary.reason(end).startswith("every worker ended with 0")
    lines = summary.result(end, Path("runs/r-1"))
    assert lines[0] == "run r-1: 3 workers on 2 nodes, 12.3 s; logs in runs/r-1/logs"
    assert lines[1] == "2 checkpoints here, verified; the newest is c/step-3 (2.4 MB)"


def test_how_far_the_run_is() -> None:
    run = Run()
    assert summary.standing(run.state) == "0/2 nodes ready"
    run.prepare("n1")
    assert summary.standing(run.state) == "1/2 nodes ready"
    run.prepare("n2")
    run.take("n1", core.WorkerReported(0, core.WorkerPhase.JOINED))
    assert summary.standing(run.state) == "1/3 ranks joined"
    run.exit(0)
    assert "1/3 workers ended" in summary.standing(run.state)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (Metrics(0.0, 0, 3, None, {"loss": 0.123456}), "step 3  loss 0.1235"),
        (Metrics(0.0, 0, None, None, {"loss": "nan"}), "loss nan"),
        (Metrics(0.0, 0, None, None, {}), ""),
    ],
)
def test_a_report_in_words(metrics: Metrics, words: str) -> None:
    assert summary.progress(metrics) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.5e9, "1.5 GB"), (5e13, "50000.0 GB")],
)
def test_a_size_in_words(count: float, words: str) -> None:
    assert summary.size(count) == words
