"""Logs after a bad day: launchers killed in a flood, files damaged here, nodes asked again."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.lab import Lab

# Prints numbered lines, a third of them to stderr, until a file is there; pauses between thousands.
FLOOD = """
import os, sys, time
rank, number, filler = os.environ["RANK"], 0, "x" * 80
while not os.path.exists(sys.argv[1]):
    out = sys.stderr if number % 3000 == 0 else sys.stdout
    lines = (f"rank {rank} line {n:012d} {filler}\\n" for n in range(number, number + 1000))
    out.write("".join(lines))
    out.flush()
    number += 1000
    time.sleep(float(sys.argv[2]))
"""
PATIENT = """
import os, sys, time
for number in range(2000):
    print("line", number)
sys.stdout.flush()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
print("all said")
"""


def lab_here(top: Path, job: str, slots: int) -> Lab:
    lab = Lab(top / "work", top / "person")
    lab.manifest(sys.executable, [{"name": "here", "transport": "local", "slots": slots}])
    lab.write("job.py", job)
    return lab


def log_here(lab: Lab, rank: int, stream: str) -> Path:
    return lab.run_dir() / "logs" / "here" / f"rank-{rank}.{stream}.log"


def printed_here(lab: Lab) -> int:
    """Returns how many bytes of the workers are here."""
    runs = lab.top / "runs"
    return sum(path.stat().st_size for path in runs.glob("*/logs/here/*.log"))


def numbers(lab: Lab, rank: int, stream: str) -> list[int]:
    """Returns the numbers of the lines that are here, each of which must be whole."""
    filler = "x" * 80
    found = []
    with log_here(lab, rank, stream).open() as lines:
        for line in lines:
            number = int(line.split()[3])
            assert line == f"rank {rank} line {number:012d} {filler}\n"
            found.append(number)
    return found


@pytest.mark.parametrize(
    ("kills", "pause_s"),
    [(2, 0.1), pytest.param(20, 0.01, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
def test_a_launcher_that_is_killed_in_a_flood_loses_no_byte(
    tmp_path: Path, kills: int, pause_s: float
) -> None:
    lab = lab_here(tmp_path, FLOOD, 2)
    stop = lab.top / "stop"
    process = lab.start("run", "--json", "job.py", "--", str(stop), str(pause_s))
    try:
        for _ in range(kills):
            before = printed_here(lab)
            wait_until(lambda: printed_here(lab) > before + 1_000_000, "the flood", 60.0)  # noqa: B023
            process.kill()
            process.communicate()
            process = lab.start("attach", "--json", "last")
    finally:
        stop.touch()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    for rank in range(2):
        pairs = (numbers(lab, rank, stream) for stream in ("stdout", "stderr"))
        found = list(itertools.chain(*pairs))
        assert sorted(found) == list(range(len(found)))
    lab.no_survivors()


def test_what_is_damaged_here_is_fetched_again_where_the_node_has_it(tmp_path: Path) -> None:
    lab = lab_here(tmp_path, PATIENT, 1)
    stop = lab.top / "stop"
    process = lab.start("run", "job.py", "--", str(stop))
    try:
        wait_until(lambda: printed_here(lab) > 18_000, "the lines", 60.0)
    finally:
        process.kill()
        process.communicate()
        stop.touch()
    log = log_here(lab, 0, "stdout")
    with log.open("r+b") as file:
        file.write(b"X")
    attached = lab.flowlaunch("attach", "last")
    assert attached.code == 74, attached.err
    assert "here: rank 0's stdout: the bytes here are not those that the worker wrote" in (
        attached.err
    )
    synced = lab.flowlaunch("logs", "last", "--sync", "--tail", "1")
    assert synced.code == 0, synced.err
    assert synced.out == "here:0 | all said\n"
    expected = "".join(f"line {number}\n" for number in range(2000)) + "all said\n"
    assert log.read_text() == expected
    assert json.loads((lab.run_dir() / "run.json").read_text())["exit_code"] == 0
    again = lab.flowlaunch("logs", "last", "--sync", "--tail", "1")
    assert (again.code, again.out) == (0, synced.out)
    lab.no_survivors()
