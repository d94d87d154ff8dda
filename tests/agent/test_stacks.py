"""Where workers are, asked of a real agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.stacks import parse
from launcher.wire import events
from tests.agent.talk import Node, new_node

WAITING = """
import socket, threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
def wait_for_peer():
    ours, theirs = socket.socketpair()
    ours.recv(1)
print("up", flush=True)
wait_for_peer()
"""
# The signal would end a program that has no answer to it.
ANOTHER = "import os\nprint('up', flush=True)\nos.execvp('sleep', ['sleep', '600'])\n"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with new_node(tmp_path / "home") as made:
        yield made


def ask(node: Node, job: str) -> dict[str, str]:
    talk = node.started(job, workers=2)
    for rank in (0, 1):
        talk.wait_output(rank, b"up")
    talk.send(events.CollectStacks())
    answer = talk.expect(events.StacksCollected)
    assert 0 <= answer.quiet_s < 60
    told: dict[str, str] = events.unpack_json(answer.data)
    talk.send(events.Ping(1.0))
    talk.expect(events.Pong)
    assert not talk.all_of(events.WorkerExited)
    return told


def test_every_worker_tells_its_place(node: Node) -> None:
    told = ask(node, WAITING)
    for rank in ("0", "1"):
        innermost, outer = parse(told[rank])
        assert innermost.endswith("wait_for_peer") and outer.endswith("<module>")


def test_a_program_that_cannot_tell_lives_on(node: Node) -> None:
    assert ask(node, ANOTHER) == {"0": "", "1": ""}
