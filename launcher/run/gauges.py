"""What is measured while a run goes on: its nodes' load, and how its ranks keep step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from launcher.collect.reports import Metrics
from launcher.collect.system import SystemLog
from launcher.core.pace import OWN_TIME, FellBehind, Finding, Pace, PaceKeeper
from launcher.core.state import RunPhase, RunState, WorkerPhase
from launcher.core.usage import Usage
from launcher.store.run_record import RunRecord
from launcher.wire import events


class GaugeWatcher(Protocol):
    """Whoever looks at the gauges."""

    def on_metrics(self, metrics: Metrics) -> None:
        """A worker reported."""

    def on_usage(self, node: str, usage: Usage) -> None:
        """A node was measured."""

    def on_pace(self, pace: Pace) -> None:
        """The ranks' step times were compared."""

    def on_problem(self, problem: str) -> None:
        """Something went wrong that does not end the run."""


class Gauges:
    """Keeps and passes on what is measured; names the ranks that fall behind."""

    def __init__(self, record: RunRecord, watcher: GaugeWatcher, nodes: Mapping[int, str]) -> None:
        """Takes the run's record, who looks, and each rank's node."""
        self._record = record
        self._watcher = watcher
        self._nodes = nodes
        self._system = SystemLog(Path(record.paths.system))
        self._keeper = PaceKeeper()
        self._attempt = 0

    def on_metrics(self, metrics: Metrics) -> None:
        """Takes a report."""
        self._watcher.on_metrics(metrics)
        if metrics.step is not None:
            own = metrics.values.get(OWN_TIME)
            own_s = own if isinstance(own, float | int) else None
            now = time.monotonic()
            self._keeper.report(metrics.rank, metrics.step, metrics.time, now, own_s)

    def on_measured(self, node: str, event: events.NodeMeasured, ahead_s: float) -> None:
        """Takes a measurement of a node whose clock is so far ahead.

        Raises:
            StoreError: this machine's disk does not take it.
        """
        self._watcher.on_usage(node, self._system.take(node, event, ahead_s))

    def on_tick(self, state: RunState) -> None:
        """Compares the ranks, now and then."""
        if state.attempt != self._attempt:
            self._attempt, self._keeper = state.attempt, PaceKeeper()
            self._nodes = state.layout
        if state.phase is not RunPhase.RUNNING:
            return
        looked = self._keeper.look(time.monotonic())
        if looked is None:
            return
        self._keeper.forget(
            rank for rank, worker in state.workers.items() if worker.phase is WorkerPhase.EXITED
        )
        pace, findings = looked
        for finding in findings:
            self._say(finding)
        if pace is not None:
            self._watcher.on_pace(pace)

    def _say(self, finding: Finding) -> None:
        node = self._nodes[finding.rank]
        if isinstance(finding, FellBehind):
            step_s, median_s = round(finding.step_s, 6), round(finding.median_s, 6)
            self._record.append(
                "worker_fell_behind", node=node, rank=finding.rank, step_s=step_s, median_s=median_s
            )
            slower = 100 * (finding.step_s / finding.median_s - 1)
            self._watcher.on_problem(
                f"rank {finding.rank} on {node} is slower than the others: {finding.step_s:.3g} s "
                f"a step for a minute, {slower:.0f} % over the median of {finding.median_s:.3g} s"
            )
        else:
            self._record.append("worker_caught_up", node=node, rank=finding.rank)
            self._watcher.on_problem(f"rank {finding.rank} on {node} keeps up again")

    def close(self) -> None:
        """Lets go of the file."""
        self._system.close()
