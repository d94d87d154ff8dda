"""What the agent measures, and what it adds to the reports of workers that are gone."""

from __future__ import annotations

import json

from launcher.wire import events
from launcher.worker.reporter import SAVED_LINES
from tests.agent.talk import Node

IDLE = "import time\nprint('up')\ntime.sleep(600)\n"
FLOOD = (
    "import os\nfrom launcher import worker\nw = worker.context()\n"
    f"for step in range({int(SAVED_LINES) * 3}): w.report(step=step, loss=step / 7)\n"
    "os.kill(os.getpid(), 9)\n"
)


def test_a_node_is_measured_while_workers_run(node: Node) -> None:
    talk = node.started(IDLE)
    measured = talk.expect(events.NodeMeasured)
    seen = events.unpack_json(measured.data)
    assert 0 <= seen["cpu"] <= 1
    assert 0 < seen["memory_used_bytes"] < seen["memory_bytes"]
    assert seen["disk_free_bytes"] > 0
    assert talk.expect(events.NodeMeasured).clock > measured.clock


def test_nothing_is_measured_before_workers_run(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    talk.prepare(node.ordered({"job.py": IDLE}))
    talk.send(events.Ping(1.0))
    talk.expect(events.Pong)
    assert not talk.all_of(events.NodeMeasured)


def test_what_was_measured_while_nobody_listened_comes_later(node: Node) -> None:
    first = node.started(IDLE)
    first.wait_output(0, b"up")
    seen = first.expect(events.NodeMeasured).clock
    first.hang_up()
    second = node.talk(mode="attach")
    second.hello()
    second.send(events.FollowOutput(events.pack_json({})))
    assert second.expect(events.NodeMeasured).clock > seen


def test_the_last_report_of_a_killed_worker_comes(node: Node) -> None:
    talk = node.started(FLOOD)
    talk.expect(events.WorkerExited, signal=9)
    talk.await_ends()
    last = json.loads(talk.output(0, "report").splitlines()[-1])
    assert last["step"] == SAVED_LINES * 3 - 1
    assert last["values"] == {"loss": (SAVED_LINES * 3 - 1) / 7}
