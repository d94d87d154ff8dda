"""A training on two hosts that three faults befall ends at the same step as one without any."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.faults import after, workers_of
from tests.support.lab import Lab, lab_of_namespaces
from tests.support.netns import NetHost

STEPS = 30
# It learns a number by descent, and keeps it at each step.
JOB = """
import os, time
from launcher import worker
w = worker.context()
step, weight = 0, 0.0
path = os.environ.get("FLOWLAUNCH_RESUME_FROM")
if path:
    step, weight = eval(open(os.path.join(path, "state")).read())
while step < STEPS:
    step, weight = step + 1, weight - 0.1 * (weight - 3.0)
    w.report(step=step, total=STEPS, weight=weight)
    if w.rank == 0:
        state = repr((step, weight))
        w.save_files(lambda top: open(os.path.join(top, "state"), "w").write(state), step)
    time.sleep(0.5)
""".replace("STEPS", str(STEPS))


def steps(lab: Lab) -> list[int]:
    """Returns the steps of the checkpoints that are here."""
    found = lab.top.glob("runs/*/checkpoints/step-*")
    newest = lab.run_dir().name
    return sorted(int(path.name[5:]) for path in found if path.parts[-3] == newest)


def further(lab: Lab) -> None:
    """Waits for one more checkpoint than there is now."""
    now = steps(lab)
    wait_until(lambda: len(steps(lab)) > len(now), f"a checkpoint after {now}", 120.0)


def state_at(lab: Lab, step: int) -> str:
    return (lab.run_dir() / "checkpoints" / f"step-{step:08d}" / "state").read_text()


def attempts(lab: Lab) -> int:
    return sum(event["event"] == "attempt_began" for event in lab.events())


@pytest.mark.soak
def test_three_faults_change_nothing_of_where_a_training_ends(
    tmp_path: Path, netns_hosts: Callable[..., list[NetHost]]
) -> None:
    hosts = netns_hosts(2)
    lab = lab_of_namespaces(tmp_path, hosts)
    lab.manifest(sys.executable, lab.ssh_nodes(), checkpoints={"keep": STEPS})
    lab.write("job.py", JOB)
    arguments = ("run", "job.py", "--max-restarts", "5")
    assert lab.flowlaunch(*arguments, limit_s=300.0).code == 0
    last = steps(lab)[-1]
    learnt = state_at(lab, last)

    process = lab.start(*arguments)
    wait_until(lambda: len(list(lab.top.glob("runs/*/events.jsonl"))) == 2, "the second run", 60.0)
    further(lab)
    [worker] = workers_of(lab.run_id(), 0, "RANK=1")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: attempts(lab) == 2, "the second attempt", 60.0)
    further(lab)
    hosts[1].link_down()
    with after(5.0, hosts[1].link_up):
        pass
    further(lab)
    begun = attempts(lab)
    [agent] = [
        event["pid"]
        for event in lab.events()
        if event["event"] == "agent_ready" and event["node"] == "n2"
    ][-1:]
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: attempts(lab) > begun, "another attempt", 60.0)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    assert (steps(lab)[-1], state_at(lab, last)) == (last, learnt)
    record = json.loads((lab.run_dir() / "run.json").read_text())
    assert 2 <= len(record["restarts"]) <= 5
    verified = lab.flowlaunch("checkpoints", "verify", "last")
    assert verified.code == 0, verified.err
    lab.no_survivors()
