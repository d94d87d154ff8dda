"""The queue between nodes and session: bounded by bytes, in order."""

from __future__ import annotations

import queue

import pytest

from launcher.core.state import NodeConnected
from launcher.run.inbox import Inbox
from launcher.wire import events


def output(size: int) -> events.WorkerOutput:
    return events.WorkerOutput(0, "stdout", 0, 0.0, bytes(size))


def test_a_node_waits_once_as_many_bytes_wait() -> None:
    inbox = Inbox(10_000)
    inbox.put(("n1", output(9_000)), block=False)
    inbox.put(("n2", NodeConnected()), block=False)
    with pytest.raises(queue.Full):
        inbox.put(("n1", output(1)), block=False)
    assert inbox.get(block=False) == ("n1", output(9_000))
    inbox.put(("n1", output(1)), block=False)
    assert [inbox.get(block=False)[0] for _ in range(2)] == ["n2", "n1"]
    with pytest.raises(queue.Empty):
        inbox.get(block=False)


def test_one_event_that_is_larger_than_all_room_passes() -> None:
    inbox = Inbox(1_000)
    inbox.put(("n1", output(1 << 20)), block=False)
    with pytest.raises(queue.Full):
        inbox.put(("n1", NodeConnected()), block=False)
    inbox.get(block=False)
    assert inbox.empty()
