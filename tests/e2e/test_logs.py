"""A run's logs as a person reads them: beside the launcher, after it, and bounded on the node."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.lab import Lab

TALKATIVE = """
import os, sys, time
rank = os.environ["RANK"]
print("loading data", flush=True)
for number in range(20):
    print("rank", rank, "step", number, flush=True)
    time.sleep(0.1)
sys.stderr.write("\\x1b]0;owned\\x07 careful")
"""
# Ends once the node keeps next to nothing of what it has printed.
BOUNDED = """
import os, sys, time
for number in range(40_000):
    print("line %08d of a worker that has much to say, and says it" % number)
sys.stdout.flush()
deadline = time.monotonic() + 60
while os.fstat(1).st_blocks * 512 > 500_000:
    if time.monotonic() > deadline:
        sys.exit("nothing was given back")
    time.sleep(0.05)
print("given back")
"""


def lab_here(top: Path, job: str, slots: int, **more: object) -> Lab:
    lab = Lab(top / "work", top / "person")
    nodes = [{"name": "here", "transport": "local", "slots": slots}]
    lab.manifest(sys.executable, nodes, **more)
    lab.write("job.py", job)
    return lab


def test_reading_beside_the_launcher_and_after_it(tmp_path: Path) -> None:
    lab = lab_here(tmp_path, TALKATIVE, 2)
    run = lab.start("run", "job.py")
    lab.wait_event("worker_started")
    follower = lab.start("logs", "last", "-f", "--rank", "1", "--grep", "step")
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    followed, told = follower.communicate(timeout=30)
    assert follower.returncode == 0, told
    steps = [f"here:1 | rank 1 step {number}" for number in range(20)]
    assert followed.splitlines() == steps
    assert "flowlaunch | the run has ended, exit code 0" in told
    assert sorted(line for line in out.splitlines() if line.startswith("here:1 | rank")) == sorted(
        steps
    )
    folded = lab.flowlaunch("logs", "last", "--fold").out
    assert "here:0-1 | loading data" in folded
    assert "here:0-1 | ^[]0;owned^G careful" in folded
    last = lab.flowlaunch("logs", lab.run_id()[:-2], "--tail", "1", "--stream", "stdout")
    assert last.out == "here:0 | rank 0 step 19\nhere:1 | rank 1 step 19\n"
    assert lab.flowlaunch("logs", "nothing").code == 64


def test_a_reader_that_leaves_ends_the_command_and_no_trace(tmp_path: Path) -> None:
    lab = lab_here(tmp_path, "for number in range(100_000): print('line', number)", 1)
    assert lab.flowlaunch("run", "job.py").code == 0
    process = lab.start("logs", "last")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "here:0 | line 0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(30) == 141


def test_a_node_keeps_no_more_than_it_may_and_nothing_is_lost(tmp_path: Path) -> None:
    lab = lab_here(tmp_path, BOUNDED, 1, logs={"max_bytes": 100_000})
    done = lab.flowlaunch("run", "job.py")
    assert done.code == 0, done.err
    (log,) = lab.run_dir().glob("logs/here/rank-0.stdout.log")
    expected = "".join(
        f"line {number:08d} of a worker that has much to say, and says it\n"
        for number in range(40_000)
    )
    assert log.read_text() == expected + "given back\n"


@pytest.mark.parametrize(
    "megabytes", [40, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_a_reader_that_stops_holds_up_no_worker(tmp_path: Path, megabytes: int) -> None:
    """`flowlaunch run job.py | less`: the worker goes on, and what it says waits on its node."""
    job = "import sys\npiece = ('x' * 99 + '\\n') * 10_000\n" + (
        f"for _ in range({megabytes}): sys.stdout.write(piece)\n"
        "print('all said', file=sys.stderr, flush=True)\n"
    )
    lab = lab_here(tmp_path, job, 1)
    process = lab.start("run", "job.py")
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1)

    def worker_ended() -> bool:
        homes = lab.home.glob(".flowlaunch/runs/*/here/logs/rank-0.stderr.log")
        return any("all said" in path.read_text() for path in homes)

    wait_until(worker_ended, "the worker's end, with nobody reading", 300.0)
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
    assert peak_kb < 200_000, "what waits, waits in files on the node"
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    line = "here:0 | " + "x" * 99 + "\n"
    assert len(first) + len(out) == megabytes * 10_000 * len(line)
