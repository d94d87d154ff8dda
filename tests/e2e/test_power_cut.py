"""Killed at any moment under continuous publishing: what is called step-… is whole, everywhere."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import pytest

from launcher.store.checkpoints import steps_of
from launcher.store.verifying import expected_in, verify
from tests.support.deadline import wait_until
from tests.support.lab import Lab

ROUNDS = int(os.environ.get("FLOWLAUNCH_POWER_CUTS", "200"))
JOB = """
import itertools, os
from launcher import worker
w = worker.context()
for step in itertools.count(1):
    def write(top):
        for number in range(8):
            with open(os.path.join(top, "f%d" % number), "wb") as file:
                file.write(os.urandom(100_000) if number % 2 else bytes(100_000))
    w.save_files(write, step)
"""


def damaged(directories: list[Path]) -> list[str]:
    """Returns what in published directories is not what was published."""
    found = []
    for directory in directories:
        expected, wrong = expected_in(directory)
        found += [
            f"{one.path}: {one.problem}" for one in [*verify(expected, lambda count: None), *wrong]
        ]
    return found


def pids(lab: Lab) -> dict[str, int]:
    """Returns the processes of the newest run, as its events tell them."""
    found = {}
    for event in lab.events():
        if event["event"] == "agent_ready":
            found["agent"] = event["pid"]
        elif event["event"] == "worker_started":
            found["worker"] = event["pid"]
    return found


@pytest.mark.soak
@pytest.mark.parametrize("victim", ["worker", "agent", "launcher"])
@pytest.mark.timeout(7200)
def test_a_kill_at_any_moment_tears_nothing_and_loses_nothing(tmp_path: Path, victim: str) -> None:
    chance = random.Random(victim)
    for number in range(ROUNDS):
        lab = Lab(tmp_path / str(number), tmp_path / str(number) / "home")
        lab.manifest(sys.executable, [{"name": "this", "transport": "local"}])
        lab.write("job.py", JOB)
        launcher = lab.start("run", "job.py", "--grace", "0")
        lab.wait_event("checkpoint_stored")
        nobody = f"no process {number}"
        with pytest.raises(AssertionError, match=nobody):
            # A random moment, not a wait for something: nothing tells when it has come.
            wait_until(lambda: False, nobody, chance.uniform(0, 0.5))
        chosen = {**pids(lab), "launcher": launcher.pid}[victim]
        os.kill(chosen, signal.SIGKILL)
        launcher.communicate(timeout=120)
        if victim == "launcher":
            pulled = lab.flowlaunch("stop", "last", "--grace", "0")
            assert pulled.code == 0, pulled.err
            pulled = lab.flowlaunch("checkpoints", "pull", "last")
            assert pulled.code == 0, pulled.err
        # The agent clears up, where everything is here.
        lab.no_survivors(60)
        here = steps_of(lab.run_dir())
        acknowledged = {
            event["step"] for event in lab.events() if event["event"] == "checkpoint_stored"
        }
        assert acknowledged <= set(here)
        node = lab.home / ".flowlaunch" / "runs" / lab.run_id() / "this"
        there = list(steps_of(node).values())
        assert damaged([*here.values(), *there]) == []
