"""What an agent leaves behind, and the one that comes after it."""

from __future__ import annotations

import os
import signal

import pytest

from launcher.wire import events
from tests.agent.talk import Node, is_alive
from tests.support.deadline import wait_until
from tests.support.processes import processes_with

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
GRANDCHILD = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""


def _kill_agent(node: Node) -> None:
    pid = node.talks[0].all_of(events.AgentReady)[0].pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the agent's end", 5.0)


def test_nobody_is_found_where_the_agent_was_killed(node: Node) -> None:
    talk = node.started(SLEEP)
    talk.wait_output(0, b"up")
    _kill_agent(node)
    gone = node.talk("attach").expect(events.NodeUnusable)
    assert (gone.problem, gone.message) == (events.GONE, "it was killed")


def test_a_successor_ends_what_the_workers_had_started(node: Node) -> None:
    talk = node.started(GRANDCHILD)
    talk.wait_output(0, b"up")
    _kill_agent(node)
    assert processes_with(node.run_id), "the grandchild should have outlived the agent"
    later = node.talk("succeed")
    later.hello()
    assert later.expect(events.WorkersStopped).left == 0
    assert len(processes_with(node.run_id)) == len(_agents(node))


def _agents(node: Node) -> list[str]:
    return [line for line in processes_with(node.run_id) if "bootstrap" not in line]


def test_a_successor_tells_what_had_happened_and_gives_the_output(node: Node) -> None:
    talk = node.started("import sys; print('one'); sys.exit(3)")
    assert talk.expect(events.WorkerExited).exit_code == 3
    talk.expect(events.WorkersStopped)
    _kill_agent(node)
    later = node.talk("succeed")
    later.hello()
    assert later.expect(events.WorkerStarted).rank == 0
    ended = later.expect(events.WorkerExited)
    assert (ended.exit_code, ended.stopped) == (3, False)
    later.expect(events.WorkersStopped)
    later.send(events.FollowOutput(b"{}"))
    later.await_ends()
    assert later.output(0) == b"one\n"
    later.end_run()
    assert not node.run_dir.exists()


def test_an_agent_without_a_launcher_leaves_and_says_why(node: Node) -> None:
    talk = node.started(SLEEP, lease_s=0.5)
    talk.wait_output(0, b"up")
    pid = talk.all_of(events.AgentReady)[0].pid
    talk.hang_up()
    wait_until(lambda: not is_alive(pid), "the agent's end", 15.0)
    gone = node.talk("attach").expect(events.NodeUnusable)
    assert "which is the lease" in gone.message
    later = node.talk("succeed")
    later.hello()
    later.expect(events.LeaseEnded)
    assert later.expect(events.WorkerExited).stopped


def test_a_new_attempt_takes_a_node_over_where_workers_still_run(node: Node) -> None:
    talk = node.started(SLEEP)
    talk.wait_output(0, b"up")
    ordered = node.ordered({"job.py": "print('again')"})
    later = node.talk("start")
    later.hello()
    port = later.prepare(ordered).ctrl_port
    later.send(events.FollowOutput(b"{}"), events.StartWorkers(1, port, ""))
    started = later.expect(events.WorkerStarted, attempt=1)
    assert started.stdout_at == len(b"up\n")
    assert later.expect(events.WorkerExited, attempt=1).exit_code == 0
    later.await_ends()
    assert later.output(0) == b"up\nagain\n"


def test_to_start_twice_the_same_attempt_is_to_start_it_once(node: Node) -> None:
    talk = node.started(SLEEP)
    talk.wait_output(0, b"up")
    talk.send(events.StartWorkers(0, 20001, ""), events.Ping(1.0))
    talk.expect(events.Pong)
    assert len(talk.all_of(events.WorkerStarted)) == 1


@pytest.mark.parametrize("keeps", ["order.json", "news"])
def test_no_value_of_the_environment_is_kept(node: Node, keeps: str) -> None:
    talk = node.started(SLEEP, env={"TOKEN": "s3cret"})
    talk.wait_output(0, b"up")
    assert b"s3cret" not in (node.run_dir / keeps).read_bytes()
