"""Side conversations with a real agent: beside its launcher, after it, and without an agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.agent import run_processes
from launcher.wire import events
from tests.agent.talk import Node, Talk, is_alive, new_node
from tests.support.deadline import wait_until
from tests.support.processes import processes_with

LOOP = (
    "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.1); print('on', flush=True)\n"
)
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1:] != ["child"]:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
    print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with new_node(tmp_path / "home") as made:
        yield made


def visit(node: Node, mode: str = "visit") -> Talk:
    talk = node.talk(mode)
    talk.hello()
    return talk


def left_after(talk: Talk, grace_s: float = 0.2) -> list[object]:
    talk.send(events.StopRun(grace_s))
    left: list[object] = events.unpack_json(talk.expect(events.RunStopped).data)
    return left


def test_a_visitor_asks_while_the_launcher_is_served(node: Node) -> None:
    main = node.started(LOOP)
    main.wait_output(0, b"up")
    side = visit(node)
    side.send(events.AskStanding())
    standing = events.unpack_json(side.expect(events.StandingReported).data)
    assert standing["linked"] and standing["working"] and not standing["detached"]
    main.wait_more(0)
    side.hang_up()
    main.wait_more(0)
    main.send(events.Ping(1.0))
    main.expect(events.Pong, sent=1.0)


def test_a_visitor_cannot_order_what_is_the_launchers_business(node: Node) -> None:
    main = node.started(LOOP)
    side = visit(node)
    side.send(events.OpenGate(0))
    side.expect(events.NodeUnusable, problem="protocol")
    side.read_until_over()
    main.wait_output(0, b"on")


def test_a_visitor_stops_the_workers_and_the_launcher_hears_of_it(node: Node) -> None:
    main = node.started(STUBBORN)
    main.wait_output(0, b"up")
    side = visit(node)
    assert left_after(side) == []
    main.expect(events.StopOrdered)
    main.expect(events.WorkersStopped, left=0)
    main.await_ends()
    main.end_run()


def test_the_launcher_may_end_the_run_while_a_visitor_waits(node: Node) -> None:
    main = node.started(LOOP)
    main.wait_output(0, b"up")
    side = visit(node)
    side.send(events.StopRun(0.2))
    main.expect(events.StopOrdered)
    main.send(events.EndRun(keep=False))
    assert events.unpack_json(side.expect(events.RunStopped).data) == []
    main.expect(events.RunEnded)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_dead_or_stuck_agent_leaves_is_ended_by_the_runs_id(
    node: Node, number: signal.Signals
) -> None:
    main = node.talk()
    agent = main.hello().pid
    ordered = node.ordered({"job.py": STUBBORN}, env={"FLOWLAUNCH_NODE": "n1"})
    port = main.prepare(ordered).ctrl_port
    main.send(events.StartWorkers(0, port, ""))
    worker = main.expect(events.WorkerStarted).pid
    main.wait_output(0, b"up")
    main.hang_up()
    os.kill(agent, number)
    if number is signal.SIGKILL:
        wait_until(lambda: not is_alive(worker), "the worker's end")
    assert processes_with(node.run_id), "the grandchild lives on"
    side = visit(node, "visit" if number is signal.SIGKILL else "look")
    assert left_after(side) == []
    side.hang_up()
    wait_until(lambda: not node.survivors(), "the end of all")


def test_other_programs_are_not_of_a_run(node: Node) -> None:
    """Neither by their words, nor by what else stands in their environment."""
    told = {"NOT_FLOWLAUNCH_RUN_ID": node.run_id, "X": f"FLOWLAUNCH_RUN_ID={node.run_id}"}
    env = {**os.environ, **told}
    words = [sys.executable, "-c", "input()", node.run_id, '{"run_id": "x"}']
    with subprocess.Popen(words, stdin=subprocess.PIPE, env=env) as other:
        wait_until(lambda: processes_with(node.run_id), "the other program")
        assert not [each for each in run_processes.of_runs() if each.pid == other.pid]
        assert run_processes.end([node.run_id], 0.0, with_agents=True).ended == {}
        assert other.poll() is None
        other.communicate(b"\n")


def test_a_published_file_is_read_beside_the_launcher(node: Node) -> None:
    main = node.started(LOOP)
    main.wait_output(0, b"up")
    published = node.run_dir / "checkpoints" / "step-00000001"
    published.mkdir()
    (published / "w").write_bytes(b"weights")
    side = visit(node)
    side.send(events.FetchFile(5, "step-00000001", "w", 0, 1 << 20))
    assert side.expect(events.FileChunk, request=5).data == b"weights"
    side.expect(events.FileEnded, request=5)
    side.send(events.FetchFile(6, "step-00000001", "../w", 0, 1 << 20))
    assert side.expect(events.FileEnded, request=6).error
