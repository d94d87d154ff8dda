"""Taking a run over, and starting one again: from elsewhere, twice at once, too late, with less."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.faults import Trial, early_lines
from tests.support.lab import Lab, lab_of_namespaces
from tests.support.netns import NetHost


@pytest.fixture
def detached(lab: Lab) -> Trial:
    """A run of two workers on this machine that goes on without a launcher."""
    lab.manifest(sys.executable, [{"name": "this", "transport": "local", "slots": 2}])
    trial = Trial(lab, "", "detached", "patient")
    trial.begin()
    trial.wait_up()
    return trial


def test_one_launcher_at_a_time_follows_a_run(detached: Trial) -> None:
    lab = detached.lab
    detached.attach()
    lab.wait_event("link_restored")
    second = lab.flowlaunch("attach", "last")
    assert second.code == 64, second.err
    assert "is followed by another launcher" in second.err
    assert detached.process is not None
    # Ctrl-C lets go of a detached run: it goes on, and the next one may have it.
    detached.process.send_signal(signal.SIGINT)
    assert detached.end_of_launcher() == 0, detached.said
    assert lab.survivors()
    detached.meet("end")
    detached.process = None
    assert detached.end() == 0, detached.said


def test_a_run_is_attached_from_another_directory(detached: Trial, tmp_path: Path) -> None:
    detached.meet("end")
    elsewhere = Lab(tmp_path / "elsewhere", detached.lab.home)
    runs = str(detached.lab.top / "runs")
    done = elsewhere.flowlaunch("attach", detached.lab.run_id(), "--runs-dir", runs)
    assert done.code == 0, done.err
    for rank in (0, 1):
        assert f"this:{rank} | the last line of rank {rank}" in done.out
        [log] = detached.lab.run_dir().glob(f"logs/*/rank-{rank}.stdout.log")
        assert log.read_text() == early_lines(rank) + f"the last line of rank {rank}\n"
    detached.lab.no_survivors()
    again = elsewhere.flowlaunch("attach", "last", "--runs-dir", runs)
    assert (again.code, again.out) == (0, "")
    assert "has ended, with exit code 0" in again.err


def test_an_attached_run_is_stopped_by_ctrl_c_after_it_was_taken_over(lab: Lab) -> None:
    lab.manifest(sys.executable, [{"name": "this", "transport": "local", "slots": 2}])
    trial = Trial(lab, "", "attached", "patient")
    trial.begin()
    trial.wait_up()
    assert trial.process is not None
    trial.process.kill()
    trial.process.communicate()
    trial.attach()
    lab.wait_event("link_restored")
    trial.process.send_signal(signal.SIGINT)
    assert trial.end() == 130, trial.said
    assert trial.last_line.startswith("exit 130: interrupted")


RESUMING = """
import os, sys, time
from launcher import worker
w = worker.context()
start = 0
path = os.environ.get("FLOWLAUNCH_RESUME_FROM")
if path:
    start = int(open(os.path.join(path, "step")).read())
print("starts at", start, "of", w.world_size, flush=True)
for step in range(start + 1, 7):
    if w.rank == 0:
        w.save_files(lambda top: open(os.path.join(top, "step"), "w").write(str(step)), step)
    stored = os.path.join(sys.argv[1], "step-%08d" % step)
    while not os.path.isdir(stored):  # the launcher has it
        time.sleep(0.01)
    if w.rank == w.world_size - 1 and step == 3 and not path:
        os.kill(os.getpid(), 9)
"""


def checkpoints_link(lab: Lab) -> str:
    """Returns a path that leads to the checkpoints of the lab's newest run, once there is one."""
    return str(lab.top / "newest")


def follow_newest(lab: Lab) -> None:
    """Makes that path."""
    wait_until(lambda: list(lab.top.glob("runs/*/run.json")), "the run's directory", 30.0)
    Path(checkpoints_link(lab)).symlink_to(lab.run_dir() / "checkpoints")


@pytest.mark.parametrize(
    ("is_cut", "spares", "world"),
    [
        (False, "", 2),
        pytest.param(True, "", 1, marks=pytest.mark.soak),
        pytest.param(True, "n3", 2, marks=pytest.mark.soak),
    ],
)
def test_a_restart_goes_on_from_the_newest_checkpoint(
    tmp_path: Path,
    netns_hosts: Callable[[int], list[NetHost]],
    is_cut: bool,
    spares: str,
    world: int,
) -> None:
    hosts = netns_hosts(3 if spares else 2)
    lab = lab_of_namespaces(tmp_path, hosts)
    lab.manifest(sys.executable, lab.ssh_nodes(), **({"spares": spares} if spares else {}))
    lab.write("job.py", RESUMING)
    process = lab.start(
        "run", "job.py", "--max-restarts", "1", "--min-nodes", "1", "--", checkpoints_link(lab)
    )
    follow_newest(lab)
    if is_cut:
        # The second host is out of reach from the moment when its worker has died.
        lab.wait_event("worker_exited", 60.0)
        hosts[1].link_down()
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    record = json.loads((lab.run_dir() / "run.json").read_text())
    [restart] = record["restarts"]
    assert restart["cause"] == "rank 1 on n2 was ended by SIGKILL"
    begun = [event for event in lab.events() if event["event"] == "attempt_began"]
    step = begun[-1]["resume"]["step"]
    assert step >= 3
    said = (lab.run_dir() / "logs" / "n1" / "rank-0.stdout.log").read_text()
    assert said == f"starts at 0 of 2\nstarts at {step} of {world}\n"
    assert (lab.run_dir() / "checkpoints" / "step-00000006" / "step").read_text() == "6"
