"""What comes home of a run: logs, reports, measurements, checkpoints, collected paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from launcher.collect.checkpoints import CheckpointCollector, Dropped, NotStored, Stored
from launcher.collect.courier import Courier
from launcher.collect.gathered import Gathered, NotGathered
from launcher.collect.logs import REPORT, LogCollector, LogGap, LogGapClosed, describe_gap
from launcher.collect.reports import Metrics, ReportReader
from launcher.core import state as core
from launcher.core.blame import Raised
from launcher.core.model import LaunchPlan
from launcher.run.fleet import Fleet
from launcher.run.following import Options, Watcher
from launcher.run.gauges import Gauges
from launcher.run.log_release import LogRelease
from launcher.store.run_record import RunRecord
from launcher.wire import events

# The end of a failed worker's stderr that is shown.
TAIL_BYTES = 16 * 1024


class Harvest:
    """Keeps what the nodes send, shows it to the watcher, and says what it means for the run.

    Attributes:
        stored: the checkpoints that were brought here, in order.
        gathered: likewise what `--collect` names.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        record: RunRecord,
        fleet: Fleet,
        watcher: Watcher,
        options: Options,
        wake: Callable[[], None],
    ) -> None:
        """Begins; nothing is here yet.

        Args:
            plan: that of the first attempt.
            record: where the run is kept.
            fleet: the ways to its nodes.
            watcher: who looks on.
            options: how the run is followed.
            wake: called from another thread when something came of collecting.
        """
        self._record = record
        self._fleet = fleet
        self._watcher = watcher
        self._bounds_logs = plan.logs.max_bytes is not None
        nodes = {rank.rank: rank.node for rank in plan.ranks}
        self._logs = LogCollector(record.paths, nodes, self._on_gap)
        self._release = LogRelease(self._logs, fleet.send)
        self._reports = ReportReader(Path(record.paths.metrics))
        self._gauges = Gauges(record, watcher, nodes)
        collector = CheckpointCollector(
            record.paths,
            fleet.send,
            bytes_per_s=options.collect_bytes_per_s,
            policy=plan.checkpoints,
        )
        self._courier = Courier(collector, wake)
        self.stored: list[Stored] = []
        self.gathered: list[Gathered] = []

    def start(self) -> None:
        """Begins to tell nodes what they need not keep, where their logs are bounded."""
        if self._bounds_logs:
            self._release.start()

    def resume(self) -> None:
        """Goes on behind what is here.

        Raises:
            StoreError: this machine's disk does not take what has to be kept.
        """
        self._logs.resume(self._record.event_lines())
        self._reports.resume(self._logs.reports())

    def place(self, layout: Mapping[int, str]) -> None:
        """Takes what these workers write too."""
        self._logs.place(dict(layout))

    @property
    def newest(self) -> Stored | None:
        """The checkpoint of the latest step that was brought here."""
        return max(self.stored, key=lambda stored: stored.step, default=None)

    @property
    def pending(self) -> int:
        """How many checkpoints and paths are still on their way."""
        return self._courier.pending

    # Logs and reports

    def on_output(
        self, node: str, event: events.WorkerOutput, ahead_s: float
    ) -> Iterable[core.AnyEvent]:
        """Takes a worker's bytes from a node whose clock is so far ahead; yields what they tell.

        Raises:
            StoreError: this machine's disk does not take them.
        """
        at = event.clock - ahead_s
        fresh = self._logs.append(node, event.rank, event.stream, event.offset, event.data, at)
        if event.stream != REPORT:
            self._watcher.on_output(event.rank, event.stream, fresh)
            return
        for report in self._reports.feed(node, event.rank, fresh):
            if isinstance(report, Metrics):
                self._gauges.on_metrics(report)
            elif isinstance(report, Raised):
                yield core.WorkerRaised(event.rank, report)
            else:
                yield core.WorkerReported(event.rank, report)

    def _on_gap(self, node: str, gap: LogGap | LogGapClosed) -> None:
        kind = events.snake_case(type(gap).__name__)
        self._record.append(kind, node=node, **gap._asdict())
        if isinstance(gap, LogGap):
            self._watcher.on_problem(describe_gap(node, gap))

    def on_output_end(self, node: str, event: events.OutputEnded) -> core.OutputComplete:
        """Compares a stream that has ended with what is here of it."""
        problem = self._logs.problem_with(node, event.rank, event.stream, event.size, event.sha256)
        return core.OutputComplete(event.rank, event.stream, problem)

    def tail(self, node: str, rank: int) -> bytes:
        """Returns the end of a worker's stderr."""
        return self._logs.tail(node, rank, "stderr", TAIL_BYTES)

    def on_measured(self, node: str, event: events.NodeMeasured, ahead_s: float) -> None:
        """Takes how busy a node is."""
        self._gauges.on_measured(node, event, ahead_s)

    def on_tick(self, state: core.RunState) -> None:
        """Compares the ranks, now and then."""
        self._gauges.on_tick(state)

    # Checkpoints and collected paths

    def on_published(self, node: str, event: events.CheckpointPublished) -> None:
        """A worker published a checkpoint: it is fetched."""
        self._courier.on_published(node, event)

    def on_settled(self, node: str, event: events.PathSettled) -> None:
        """A path that is to be collected is whole: it is fetched."""
        self._courier.on_settled(node, event)

    def on_chunk(self, event: events.FileChunk) -> None:
        """A piece of a file came."""
        self._courier.on_chunk(event)

    def on_file_end(self, event: events.FileEnded) -> None:
        """A file's last piece came, or there is none."""
        self._courier.on_ended(event)

    def on_dropped(self, node: str) -> None:
        """There is no connection to a node for now: others are asked for what it has."""
        self._courier.on_node_absent(node)

    def on_restored(self, node: str) -> None:
        """A node is there again, and is to send on from where it stopped."""
        offsets = self._logs.offsets().get(node, {})
        self._fleet.send(node, events.FollowOutput(events.pack_json(offsets)))
        self._courier.on_node_present(node)

    def on_lost(self, node: str) -> None:
        """Nothing more comes of a node."""
        self._courier.on_node_lost(node)

    def take_outcomes(self) -> Iterable[tuple[str, core.AnyEvent]]:
        """Keeps and shows what came of collecting; yields, with its node, what failed."""
        for outcome in self._courier.outcomes():
            if isinstance(outcome, NotStored | NotGathered):
                self._record.append("checkpoint_failed", problem=outcome.problem)
                self._watcher.on_problem(outcome.problem)
                yield outcome.node, core.CheckpointFailed(outcome.problem)
            else:
                self._keep(outcome)

    def _keep(self, outcome: Stored | Gathered | Dropped) -> None:
        if isinstance(outcome, Stored):
            self.stored.append(outcome)
            self._write_down("checkpoint_stored", outcome, step=outcome.step)
            self._watcher.on_checkpoint(outcome)
        elif isinstance(outcome, Gathered):
            self.gathered.append(outcome)
            self._write_down("path_collected", outcome, path=outcome.path)
            self._watcher.on_collected(outcome)
        else:
            self._record.append("checkpoint_dropped", step=outcome.step)
            self.stored = [stored for stored in self.stored if stored.step != outcome.step]
            # It was here, so nodes need not keep it either.
            self._fleet.broadcast(events.DropCheckpoint(outcome.name))

    def _write_down(self, kind: str, outcome: Stored | Gathered, **what: Any) -> None:
        sizes = {"bytes": outcome.bytes, "linked_bytes": outcome.linked_bytes}
        self._record.append(kind, node=outcome.node, **what, **sizes)

    # The end

    def stop(self) -> None:
        """Tells nodes nothing more."""
        self._release.stop()

    def close(self) -> None:
        """Lets go of every file; what is not whole is removed."""
        self._courier.close()
        for outcome in self._courier.incomplete():
            self._watcher.on_problem(outcome.problem)
        self._reports.close()
        self._gauges.close()
        self._logs.close()
