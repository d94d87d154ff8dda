"""What goes wrong while workers run: the first failure is the one that is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.lab import Factory, Lab

TRAINING = """
import os, sys, time
import oneflow as flow
rank = int(os.environ["RANK"])
print("joined", rank)
print("to stderr", rank, file=sys.stderr)
flow.comm.barrier()  # both have written
how = sys.argv[1]
if rank == 1:
    if how == "raise":
        raise ValueError("the loss is nan")
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), 9)
time.sleep(600)
"""


@pytest.mark.oneflow
@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("raise", 1, "rank 1 on n2 ended with exit code 1 (ValueError: the loss is nan)"),
        ("exit", 3, "rank 1 on n2 ended with exit code 3"),
        ("kill", 137, "rank 1 on n2 was ended by SIGKILL"),
    ],
)
def test_one_failing_rank_ends_the_run(
    lab_of: Factory, runtime_python: Path, how: str, code: int, words: str
) -> None:
    lab = lab_of(2)
    lab.manifest(runtime_python, lab.ssh_nodes())
    lab.write("job.py", TRAINING)
    done = lab.flowlaunch("run", "job.py", "--", how, limit_s=60)
    assert done.code == code, done.err
    assert done.last_line == f"exit {code}: {words}"
    if how == "raise":
        # Once as the worker's own line on each of its ways here, and only the job's frames.
        assert done.err.count("ValueError: the loss is nan") == 3
        assert "bootstrap.py" not in done.err
    for rank, node in ((0, "n1"), (1, "n2")):
        logs = lab.run_dir() / "logs" / node
        assert (logs / f"rank-{rank}.stdout.log").read_text() == f"joined {rank}\n"
        assert (logs / f"rank-{rank}.stderr.log").read_text().startswith(f"to stderr {rank}\n")
    lab.no_survivors()
    for host in lab.hosts:
        assert not list((host.home / ".flowlaunch" / "runs").iterdir())


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "child" in sys.argv:
    time.sleep(600)
subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


def interrupt(lab: Lab, times: int, *arguments: str) -> tuple[int, str, float]:
    """Interrupts a run once its workers stand; returns its code, its words and how long it took."""
    process = lab.start("run", "job.py", *arguments)
    lab.wait_event("worker_started")
    wait_until(
        lambda: any(
            "ready" in path.read_text() for path in lab.run_dir().rglob("rank-*.stdout.log")
        ),
        "a worker's first line",
    )
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    if times > 1:
        lab.wait_event("interrupted")
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    return process.returncode, err, time.monotonic() - started


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_nothing_behind(lab: Lab, runtime_python: Path, times: int) -> None:
    lab.manifest(runtime_python, [{"name": "this", "transport": "local", "slots": 2}])
    lab.write("job.py", STUBBORN)
    code, err, took_s = interrupt(lab, times, "--grace", "2")
    assert code == 130, err
    assert err.strip().splitlines()[-1].startswith("exit 130: interrupted")
    assert took_s < (5 if times == 1 else 4)
    lab.no_survivors(1.0)


def test_the_time_limit(lab: Lab, runtime_python: Path) -> None:
    lab.manifest(runtime_python, [{"name": "this", "transport": "local"}])
    lab.write("job.py", "import time; print('up'); time.sleep(600)")
    done = lab.flowlaunch("run", "job.py", "--timeout", "2")
    assert done.code == 124, done.err
    assert "exit 124: the time of --timeout" in done.last_line
    lab.no_survivors()


def test_a_reader_of_the_output_that_goes_away_ends_the_run(lab: Lab, runtime_python: Path) -> None:
    lab.manifest(runtime_python, [{"name": "this", "transport": "local", "slots": 2}])
    lab.write("job.py", "import time\nfor i in range(10**6): print(i); time.sleep(0.001)\n")
    process = lab.start("run", "job.py")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith("this:")
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 141
    assert "Traceback" not in said
    lab.no_survivors(10.0)


def test_a_node_that_falls_silent_ends_the_run(lab_of: Factory, runtime_python: Path) -> None:
    lab = lab_of(2)
    lab.manifest(runtime_python, lab.ssh_nodes())
    lab.write("job.py", "import time; print('up'); time.sleep(600)")
    process = lab.start("run", "job.py", "--lease", "15")
    lab.wait_event("worker_started")
    agents = {event["node"]: event["pid"] for event in lab.events() if "hostname" in event}
    os.kill(agents["n2"], signal.SIGSTOP)
    try:
        _, err = process.communicate(timeout=120)
    finally:
        # Its link is closed: it ends its workers once its lease is over.
        os.kill(agents["n2"], signal.SIGKILL)
    assert process.returncode == 69, err
    assert "n2: it has said nothing for 15 s" in err
    assert err.strip().splitlines()[-1] == "exit 69: cannot use n2"
    lab.no_survivors()
