"""What a report tells of a run, gathered from its files in one pass over each.

Memory is bounded whatever the run's length: curves are kept as envelopes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.core.envelope import Envelope
from launcher.core.pace import OWN_TIME
from launcher.core.usage import Usage, usage_of
from launcher.store import run_history
from launcher.store.metrics_file import MetricsFile, Point
from launcher.store.runs import KnownRun

# Of one metric, so many ranks have a curve of their own; all ranks together are a band.
MOST_LINES = 6
MOST_METRICS = 24
_BUCKETS = 600
_NODE_BUCKETS = 100
# More than these, the middle is left out.
MOST_EVENTS = 400
# Each worker or node says these; of those that come one after the other, one is shown.
_FOLDED = (
    "node_connected", "agent_ready", "node_prepared", "worker_started", "worker_reported",
    "output_complete", "checkpoints_pending", "checkpoint_published", "workers_stopped",
)  # fmt: skip
# What happens all the time, and what is told elsewhere on the page.
_DULL = ("pong", "clock_measured", "tick")


@dataclass
class MetricCurves:
    """One metric: a curve for some ranks, and what all of them span."""

    lines: dict[int, Envelope] = field(default_factory=dict)
    all_ranks: Envelope = field(default_factory=lambda: Envelope(_BUCKETS))
    ranks: set[int] = field(default_factory=set)
    newest: Point | None = None

    def add(self, name: str, x: float, point: Point) -> None:
        """Takes a value in."""
        value = point.values[name]
        self.all_ranks.add(x, value)
        self.ranks.add(point.rank)
        if point.rank not in self.lines and len(self.lines) < MOST_LINES:
            self.lines[point.rank] = Envelope(_BUCKETS)
        if point.rank in self.lines:
            self.lines[point.rank].add(x, value)
        if self.newest is None or point.rank <= self.newest.rank:
            self.newest = point


@dataclass
class StepTimes:
    """How long one rank takes for a step, over the whole run."""

    step: int | None = None
    time: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    own_s: float = 0.0
    own_count: int = 0

    def add(self, point: Point) -> None:
        """Takes a report in; steps that begin anew do not count."""
        own = point.values.get(OWN_TIME)
        if own is not None and math.isfinite(own):
            self.own_s += own
            self.own_count += 1
        if point.step is None:
            return
        if self.step is not None and point.step > self.step and point.time > self.time:
            self.steps += point.step - self.step
            self.seconds += point.time - self.time
        self.step, self.time = point.step, point.time

    @property
    def step_s(self) -> float | None:
        """The mean step time, None where there is none."""
        if self.own_count:
            return self.own_s / self.own_count
        return self.seconds / self.steps if self.steps else None


@dataclass
class NodeLoad:
    """How busy one node was."""

    cpu: Envelope = field(default_factory=lambda: Envelope(_NODE_BUCKETS, 2.0))
    gpu: Envelope = field(default_factory=lambda: Envelope(_NODE_BUCKETS, 2.0))
    memory_most: float | None = None
    disk_least_bytes: float | None = None
    newest: Usage = field(default_factory=Usage)

    def add(self, time: float, usage: Usage) -> None:
        """Takes a measurement in."""
        if usage.cpu is not None:
            self.cpu.add(time, usage.cpu)
        if usage.gpu is not None:
            self.gpu.add(time, usage.gpu)
        if usage.memory is not None:
            self.memory_most = max(usage.memory, self.memory_most or 0.0)
        free = usage.disk_free_bytes
        if free is not None:
            self.disk_least_bytes = min(free, self.disk_least_bytes or math.inf)
        self.newest = usage


@dataclass
class Happened:
    """One event, or several of one kind that came one after the other."""

    time: float
    kind: str
    fields: Mapping[str, Any]
    count: int = 1


@dataclass
class RunData:
    """Everything that the page shows."""

    run: KnownRun
    plan: Mapping[str, Any]
    manifest: str
    metrics: dict[str, MetricCurves] = field(default_factory=dict)
    has_steps: bool = True
    reports: int = 0
    step: int | None = None
    total: int | None = None
    step_times: dict[int, StepTimes] = field(default_factory=dict)
    nodes: dict[str, NodeLoad] = field(default_factory=dict)
    happened: list[Happened] = field(default_factory=list)
    checkpoints: list[Mapping[str, Any]] = field(default_factory=list)
    workers: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def began(self) -> float:
        """When the run began, by this machine's clock."""
        return self.run.started or (self.happened[0].time if self.happened else 0.0)


def gather(run: KnownRun) -> RunData:
    """Reads a run's files.

    Raises:
        StoreError: one that must be there cannot be read.
    """
    data = RunData(run, run.plan(), _text(Path(run.paths.manifest)))
    _read_metrics(data)
    for time, node, usage in _measurements(Path(run.paths.system)):
        data.nodes.setdefault(node, NodeLoad()).add(time, usage)
    _read_events(data)
    data.workers = run_history.workers(run.paths, run.record.get("workers") or {})
    return data


def _read_metrics(data: RunData) -> None:
    file = MetricsFile(Path(data.run.paths.metrics))
    try:
        for point in file.more():
            data.reports += 1
            if isinstance(point.step, int):
                data.step, data.total = point.step, point.total
            x = float(data.reports if point.step is None else point.step)
            data.step_times.setdefault(point.rank, StepTimes()).add(point)
            for name in point.values:
                if name in data.metrics or len(data.metrics) < MOST_METRICS:
                    data.metrics.setdefault(name, MetricCurves()).add(name, x, point)
    finally:
        file.close()


def _measurements(path: Path) -> Iterator[tuple[float, str, Usage]]:
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    fields = json.loads(line)
                    yield float(fields["time"]), str(fields["node"]), usage_of(fields)
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue
    except FileNotFoundError:
        return


def _read_events(data: RunData) -> None:
    for event in run_history.events(data.run.paths):
        kind = str(event.get("event"))
        if kind in _DULL:
            continue
        if kind == "checkpoint_stored":
            data.checkpoints.append(event)
        last = data.happened[-1] if data.happened else None
        if last is not None and last.kind == kind and kind in _FOLDED:
            last.count += 1
            continue
        time = event.get("time")
        at = float(time) if isinstance(time, int | float) else 0.0
        fields = {k: v for k, v in event.items() if k not in ("time", "event")}
        data.happened.append(Happened(at, kind, fields))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
