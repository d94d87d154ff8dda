"""What events.jsonl tells is how the run stood: a launcher that takes it up begins from there."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from launcher.core import replay
from launcher.core import state as core
from launcher.core.blame import Raised
from launcher.wire import events as wire
from tests.unit.test_state import Run
from tests.unit.test_wire_events import CLASSES, sample


class Recorded(Run):
    """A run whose events are written down as the session does it."""

    def __init__(self, layout: dict[int, str] | None = None) -> None:
        super().__init__(layout)
        self.lines: list[bytes] = []

    def take(self, node: str, event: core.AnyEvent) -> list[core.Action]:
        fields = {key: value for key, value in event._asdict().items() if key != "data"}
        plain = {
            key: value.value if isinstance(value, core.WorkerPhase) else value
            for key, value in fields.items()
        }
        plain = {
            key: value._asdict() if isinstance(value, Raised) else value
            for key, value in plain.items()
        }
        kind = wire.snake_case(type(event).__name__)
        line: dict[str, Any] = {"time": self.now, "event": kind, **plain}
        self.lines.append(json.dumps({**line, **({"node": node} if node else {})}).encode())
        return super().take(node, event)

    def again(self) -> core.RunState:
        return replay.replay(self.lines, core.new_run(self.layout))


def failed_run() -> Recorded:
    run = Recorded()
    run.start()
    run.take("n1", core.ClockMeasured(2.5))
    run.take("n1", core.WorkerReported(0, core.WorkerPhase.JOINED))
    run.take("n2", core.WorkerRaised(2, Raised("ValueError", "nan", ("job.py:3",))))
    run.exit(2, 3)
    run.take("n1", wire.WorkerExited(0, 0, None, core.SIGTERM, 5.0, True))
    return run


def test_the_state_is_the_one_that_was() -> None:
    run = failed_run()
    again = run.again()
    assert again.nodes == run.state.nodes
    assert again.workers == run.state.workers
    assert (again.phase, again.stop_reason) == (core.RunPhase.STOPPING, run.state.stop_reason)
    assert again.root_cause == run.state.root_cause
    assert again.root_cause is not None
    assert again.root_cause.rank == 2


def test_torn_and_foreign_lines_change_nothing() -> None:
    run = failed_run()
    before = run.again()
    run.lines[3:3] = [b"", b"{", b"[]", b"null", b'{"event": "checkpoint_stored", "time": 1}']
    run.lines += [b'{"event": "worker_exited", "time": 1, "rank": 0}', run.lines[-1][:20]]
    assert run.again() == before


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_event_of_a_node_keeps_a_run_from_being_taken_up(cls: Any) -> None:
    run = Recorded()
    run.start()
    # A payload may be none; written down is the event without it.
    with contextlib.suppress(wire.codec.WireError):
        run.take("n1", sample(cls))
    run.exit(2, 3)
    assert run.again().workers[2].exit is not None


def test_an_attempt_has_a_layout_of_its_own() -> None:
    run = failed_run()
    began = {
        "time": 200.0,
        "event": replay.ATTEMPT_BEGAN,
        "attempt": 1,
        "layout": {"0": "n1", "1": "spare"},
        "restarts": [{"attempt": 0, "cause": "rank 2 failed", "at": 150.0}],
    }
    run.lines.append(json.dumps(began).encode())
    again = run.again()
    assert (again.attempt, again.layout) == (1, {0: "n1", 1: "spare"})
    assert again.phase is core.RunPhase.PREPARING
    assert again.restarts == (core.Restart(0, "rank 2 failed", 150.0),)


def test_what_was_given_up_is_tried_again() -> None:
    run = Recorded()
    run.start()
    run.exit(0)
    run.exit(1)
    run.exit(2, 3)
    run.stopped()
    run.take("n1", core.OutputComplete(0, "stdout", "n1: rank 0's stdout: 3 of 4 bytes are here"))
    run.complete(1, 2)
    run.take("n1", core.LinkLost("cut"))
    assert run.phase() is core.RunPhase.ENDED
    taken = replay.taken_up(run.again(), 1000.0)
    assert taken.phase is core.RunPhase.STOPPING
    assert taken.missing == ()
    assert "stdout" in taken.workers[0].open_streams
    assert taken.nodes["n1"].is_reachable
    assert taken.root_cause == run.state.root_cause


def test_a_run_that_goes_on_goes_on() -> None:
    run = Recorded()
    run.start()
    taken = replay.taken_up(run.again(), 1000.0)
    assert taken.phase is core.RunPhase.RUNNING
    assert taken.nodes == run.state.nodes
