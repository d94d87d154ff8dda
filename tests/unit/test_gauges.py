"""What is measured while a run goes on is kept, passed on, and said where it matters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.collect.reports import Metrics
from launcher.core import state as core
from launcher.core.pace import LOOK_S, Pace
from launcher.core.usage import Usage
from launcher.run import gauges
from launcher.run.gauges import Gauges
from launcher.store.run_record import RunRecord
from launcher.wire import events
from tests.unit.test_state import Run


class Watcher:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.paces: list[Pace] = []
        self.usages: list[tuple[str, Usage]] = []
        self.reports = 0

    def on_metrics(self, metrics: Metrics) -> None:
        self.reports += 1

    def on_usage(self, node: str, usage: Usage) -> None:
        self.usages.append((node, usage))

    def on_pace(self, pace: Pace) -> None:
        self.paces.append(pace)

    def on_problem(self, problem: str) -> None:
        self.problems.append(problem)


class Clock:
    """A monotonic clock that goes when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def record(tmp_path: Path) -> Iterator[RunRecord]:
    made = RunRecord.create(tmp_path / "runs", "lenet", {}, world_size=3)
    yield made
    made.close()


def test_a_rank_that_falls_behind_and_catches_up_is_named_everywhere(
    record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, watcher, run = Clock(), Watcher(), Run()
    monkeypatch.setattr(gauges, "time", clock)
    run.start()
    made = Gauges(record, watcher, run.layout)

    def train(seconds: int, slow: float) -> None:
        for _ in range(seconds):
            clock.now += 1
            for rank in run.layout:
                own_s = slow if rank == 2 else 0.5
                made.on_metrics(Metrics(clock.now, rank, int(clock.now), None, {"step_s": own_s}))
            made.on_tick(run.state)

    train(90, 0.75)
    train(150, 0.5)
    made.close()
    assert watcher.problems == [
        "rank 2 on n2 is slower than the others: 0.75 s a step for a minute, "
        "50 % over the median of 0.5 s",
        "rank 2 on n2 keeps up again",
    ]
    assert watcher.reports == 240 * 3
    assert len(watcher.paces) == pytest.approx(240 / LOOK_S, abs=2)
    told = [json.loads(line) for line in Path(record.paths.events).read_text().splitlines()]
    assert [(each["event"], each["rank"], each["node"]) for each in told] == [
        ("worker_fell_behind", 2, "n2"),
        ("worker_caught_up", 2, "n2"),
    ]


def test_nobody_is_compared_before_workers_run_or_after_a_restart(
    record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, watcher, run = Clock(), Watcher(), Run()
    monkeypatch.setattr(gauges, "time", clock)
    made = Gauges(record, watcher, run.layout)
    made.on_tick(run.state)
    for step in range(100):
        clock.now += 1
        made.on_metrics(Metrics(clock.now, 0, step, None, {}))
        made.on_metrics(Metrics(clock.now, 1, step, None, {}))
        made.on_tick(run.state)
    assert run.state.phase is core.RunPhase.PREPARING
    assert watcher.paces == []
    made.close()


def test_a_nodes_measurement_is_passed_on_and_kept(record: RunRecord) -> None:
    watcher = Watcher()
    made = Gauges(record, watcher, {0: "n1"})
    made.on_measured("n1", events.NodeMeasured(20.0, events.pack_json({"cpu": 0.5})), 5.0)
    made.close()
    assert watcher.usages == [("n1", Usage(cpu=0.5))]
    assert json.loads(Path(record.paths.system).read_text()) == {
        "time": 15.0,
        "node": "n1",
        "cpu": 0.5,
    }
