"""Ending runs from elsewhere: beside a live launcher, after a dead one, and all that is left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.lab import Lab, lab_of_namespaces
from tests.support.netns import NetHost

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1:] != ["child"]:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
    print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def here(lab: Lab) -> Iterator[Lab]:
    """A lab of this machine alone, with two workers that are hard to end."""
    lab.manifest(sys.executable, [{"name": "this", "transport": "local", "slots": 2}])
    lab.write("job.py", STUBBORN)
    yield lab
    for line in lab.survivors():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)


def started(lab: Lab, workers: int = 2) -> subprocess.Popen[str]:
    """Starts a run and waits for the first line of each of its workers."""
    before = set((lab.top / "runs").glob("*"))
    process = lab.start("run", "job.py")

    def are_up() -> bool:
        fresh = set((lab.top / "runs").glob("*")) - before
        logs = [path for top in fresh for path in top.rglob("rank-*.stdout.log")]
        return sum("up" in path.read_text() for path in logs) == workers

    wait_until(are_up, "every worker's first line", 60.0)
    return process


def killed(lab: Lab, *, agents: bool = False) -> None:
    """Starts a run and kills its launcher, and its agents where that is wanted."""
    process = started(lab, len(json.loads((lab.top / "cluster.yaml").read_text())["nodes"]) * 2)
    process.kill()
    process.communicate()
    if agents:
        for event in lab.events():
            if "hostname" in event:
                os.kill(event["pid"], signal.SIGKILL)


def test_stop_ends_a_run_that_is_followed_elsewhere(here: Lab) -> None:
    process = started(here)
    done = here.flowlaunch("stop", "last", "--grace", "0.5")
    assert done.code == 0, done.err
    assert done.last_line == f"{here.run_id()}: 0 processes left on 1 node"
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "exit 130: stopped by `flowlaunch stop`"
    assert "failed first" not in err
    here.no_survivors()
    [row] = json.loads(here.flowlaunch("ps", "--json").out)
    assert (row["state"], row["exit_code"]) == ("stopped", 130)


@pytest.mark.parametrize("agents", [False, True])
def test_stop_ends_what_a_dead_launcher_left(here: Lab, agents: bool) -> None:
    killed(here, agents=agents)
    assert here.survivors()
    done = here.flowlaunch("stop", here.run_id()[:-2], "--grace", "0.5")
    assert done.code == 0, done.err
    assert "0 processes left on 1 node" in done.last_line
    here.no_survivors()
    assert_home(here)


def test_stop_ends_a_detached_run_and_brings_home_what_it_wrote(here: Lab) -> None:
    begun = here.flowlaunch("run", "-d", "job.py")
    assert begun.code == 0, begun.err
    assert here.survivors()
    done = here.flowlaunch("stop", "last", "--grace", "0.5")
    assert done.code == 0, done.err
    assert done.last_line == f"{here.run_id()}: 0 processes left on 1 node"
    here.no_survivors()
    assert_home(here)
    again = here.flowlaunch("stop", "last")
    assert (again.code, again.last_line) == (0, done.last_line)


def assert_home(lab: Lab) -> None:
    """Asserts that a stopped run is written down as such, with all that its workers wrote."""
    told = json.loads(lab.flowlaunch("status", "last", "--json").out)
    assert (told["state"], told["exit_code"], told["missing"]) == ("stopped", 130, [])
    for rank in (0, 1):
        log = lab.run_dir() / "logs" / "this" / f"rank-{rank}.stdout.log"
        assert log.read_text() == "up\n"


def test_reap_ends_what_is_left_over_and_nothing_else(here: Lab) -> None:
    killed(here)
    left = here.run_id()
    alive = started(here)
    looked = json.loads(here.flowlaunch("reap", "--dry-run", "--json").out)
    assert looked["verdicts"][left]["ends"]
    assert not looked["verdicts"][here.run_id()]["ends"]
    done = here.flowlaunch("reap", left, "--grace", "0.2")
    assert done.code == 0, done.err
    assert f"run {left}: ended" in done.err
    assert done.last_line == "0 survivors on 1 node"
    assert not [line for line in here.survivors() if left in line]
    assert alive.poll() is None and here.survivors()
    alive.send_signal(signal.SIGINT)
    alive.communicate(timeout=30)
    gone = here.flowlaunch("reap", left, "--older-than", "0")
    assert f"run {left}: its directory removed" in gone.err
    assert not (here.home / ".flowlaunch" / "runs" / left).exists()


def test_reap_ends_what_a_killed_agent_left(here: Lab) -> None:
    killed(here, agents=True)
    done = here.flowlaunch("reap", "last", "--grace", "0")
    assert (done.code, done.last_line) == (0, "0 survivors on 1 node")
    here.no_survivors()


def test_a_node_that_cannot_be_reached_is_named(
    tmp_path: Path, netns_hosts: Callable[[int], list[NetHost]]
) -> None:
    hosts = netns_hosts(2)
    lab = lab_of_namespaces(tmp_path, hosts)
    lab.manifest(sys.executable, lab.ssh_nodes(2))
    lab.write("job.py", STUBBORN)
    killed(lab)
    hosts[1].bar()
    try:
        done = lab.flowlaunch("stop", "last", "--grace", "0")
    finally:
        hosts[1].unbar()
    assert done.code == 69
    assert "n2 was not reached: its agent ends its workers when its lease is over" in done.err
    assert "0 processes left on 1 node" in done.last_line
    done = lab.flowlaunch("reap", "last", "--grace", "0", limit_s=60)
    assert (done.code, done.last_line) == (0, "0 survivors on 2 nodes"), done.err
    lab.no_survivors()


def test_ps_and_status_tell_of_runs(here: Lab) -> None:
    assert here.flowlaunch("status", "last").code == 64
    assert "there are no runs" in here.flowlaunch("ps").err
    here.write("job.py", "import sys; print('bye'); sys.exit(3)")
    here.flowlaunch("run", "job.py", "--name", "mine", "--nproc-per-node", "1")
    table = here.flowlaunch("ps").out
    assert here.run_id() in table and "failed (3)" in table
    told = here.flowlaunch("status", "mine").out
    assert "failed (3)" in told and "ended with exit code 3" in told
    as_json = json.loads(here.flowlaunch("status", "mine", "--json").out)
    assert as_json["worker_states"]["0"]["exit_code"] == 3


HANGING = """
import os, socket, time
def wait_for_peer():
    ours, theirs = socket.socketpair()
    ours.recv(1)
print("up", flush=True)
time.sleep(600) if os.environ["RANK"] == "1" else wait_for_peer()
"""


def test_a_run_that_hangs_is_stopped_and_says_where_each_rank_is(lab: Lab) -> None:
    lab.manifest(sys.executable, [{"name": "this", "transport": "local", "slots": 3}])
    lab.write("job.py", HANGING)
    done = lab.flowlaunch("run", "job.py", "--hang-timeout", "5")
    assert done.code == 124, done.err
    assert done.last_line.startswith("exit 124: hung: no output, no metric and no step for 5 s")
    assert "rank 1 stands elsewhere than the others: job.py:7 <module>" in done.last_line
    assert "ranks 0,2, the innermost call first:\n  | job.py:5 wait_for_peer" in done.err
    told = json.loads(lab.flowlaunch("status", "last", "--json").out)
    assert told["first_error"]["rank"] == 1
    lab.no_survivors()


def test_who_is_waited_for_at_the_start_is_named(lab: Lab) -> None:
    lab.manifest(sys.executable, [{"name": "this", "transport": "local", "slots": 2}])
    lab.write("oneflow.py", "import time; time.sleep(600)")
    job = "import os, time\nif os.environ['RANK'] == '0': import oneflow\ntime.sleep(600)"
    lab.write("job.py", job)
    process = lab.start("run", "job.py")
    assert process.stderr is not None
    said = next(line for line in process.stderr if "waiting for" in line)
    assert said.startswith("flowlaunch | 0/2 ranks joined; waiting for this:1 (has not imported")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    lab.no_survivors()


@pytest.mark.soak
def test_nothing_survives_a_reap_after_fifty_killed_launchers(here: Lab) -> None:
    """Killed while they connect, ship, prepare, start and follow, and their agents now and then."""
    chance = random.Random(7)
    for _ in range(50):
        process = here.start("run", "job.py")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.05, 3.0))
        process.kill()
        process.communicate()
    agents = [line for line in here.survivors() if "bootstrap.py" not in line]
    assert len(agents) > 10
    for line in chance.sample(agents, 5):
        # It may be the short-lived process of a launcher that was just killed.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    done = here.flowlaunch("reap", "--grace", "0.5")
    assert (done.code, done.last_line) == (0, "0 survivors on 1 node"), done.err
    here.no_survivors(1.0)
