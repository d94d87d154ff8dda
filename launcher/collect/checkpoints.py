"""What comes here while training goes on: checkpoints whole and proven, and collected paths."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.collect.arrivals import Arrival, Arrivals, Failed, Settled
from launcher.collect.fetching import Clock, Fetcher, Holder, Result, Send
from launcher.collect.gathered import Gathered, NotGathered, PathGatherer
from launcher.collect.known import KnownFiles
from launcher.collect.parts import PartSets
from launcher.core.model import CheckpointPolicy
from launcher.core.nodeset import fold_ranks
from launcher.core.paths import RunPaths
from launcher.core.published import (
    MANIFEST,
    BadManifest,
    Part,
    Published,
    PublishedFile,
    parse_published,
)
from launcher.store import run_history
from launcher.store.atomic import replace_json, sync
from launcher.store.pruning import remove, superfluous
from launcher.wire import events

_KEEP_ALL = CheckpointPolicy()


@dataclass(frozen=True)
class Stored:
    """A checkpoint is here, whole and proven."""

    node: str
    step: int
    bytes: int
    linked_bytes: int
    directory: Path


@dataclass(frozen=True)
class NotStored:
    """A published checkpoint cannot be brought here; `problem` says which, and why."""

    node: str
    step: int
    problem: str


@dataclass(frozen=True)
class Dropped:
    """A checkpoint that was here is removed: no rule of the manifest keeps it any longer."""

    step: int
    name: str


Outcome = Stored | NotStored | Dropped | Gathered | NotGathered


@dataclass(frozen=True)
class _Step:
    """A step that is on its way here."""

    published: Published
    arrival: Arrival


class CheckpointCollector:
    """Brings every published checkpoint of a run here.

    A file whose content is here already is linked instead of fetched, wherever it came from.
    """

    def __init__(
        self,
        paths: RunPaths,
        send: Send,
        *,
        clock: Clock = time.monotonic,
        bytes_per_s: float | None = None,
        policy: CheckpointPolicy = _KEEP_ALL,
    ) -> None:
        """Takes the run's paths and the ways out.

        Args:
            paths: the run's paths.
            send: tells a node something.
            clock: monotonic seconds.
            bytes_per_s: at most so much comes in; None is without a bound.
            policy: which checkpoints stay here.
        """
        self._paths = paths
        self._policy = policy
        self._known = KnownFiles(Path(paths.top))
        self._fetcher = Fetcher(send, clock, Path(paths.arriving_files), bytes_per_s)
        self._arrivals = Arrivals(self._fetcher, self._known)
        self._gatherer = PathGatherer(paths, self._arrivals, self._known)
        self._arriving: dict[int, _Step] = {}
        self._parts = PartSets()
        self._done = _dropped_before(paths) if policy != _KEEP_ALL else set()

    @property
    def pending(self) -> int:
        """How many published checkpoints and told paths are not here yet."""
        return len(self._arriving) + self._gatherer.pending

    def on_published(self, node: str, event: events.CheckpointPublished) -> list[Outcome]:
        """A worker published one: begins to fetch what is not here."""
        step = event.step
        if step in self._done or self._is_here(step):
            return []
        try:
            published = parse_published(event.data)
            if published.step != step:
                raise BadManifest(f"it is of step {published.step}")
        except BadManifest as error:
            return [self._give_up(node, step, f"its manifest is refused: {error}")]
        if published.part is not None:
            return self._on_part(node, event.name, published, published.part)
        place = _placed(node, event.name)
        known = self._arriving.get(step)
        if known is not None:
            if known.published.files == published.files:
                self._arrivals.add_holder(known.arrival, place)
            return []
        return self._begin(node, published, place)

    def _on_part(self, node: str, name: str, published: Published, part: Part) -> list[Outcome]:
        if published.step in self._arriving:
            return []  # told again, by an agent that was attached to anew
        try:
            whole = self._parts.add(node, name, published, part)
        except BadManifest as error:
            return [self._give_up(node, published.step, f"its manifest is refused: {error}")]
        return [] if whole is None else self._begin(node, whole.published, whole.place)

    def _begin(
        self, node: str, published: Published, place: Callable[[PublishedFile], Holder]
    ) -> list[Outcome]:
        step = published.step
        arrival = Arrival(
            node=node,
            what=f"checkpoint of step {step}",
            files=published.files,
            directory=Path(self._paths.arriving(step)),
            place=place,
        )
        self._arriving[step] = _Step(published, arrival)
        return self._settle(self._arrivals.begin(arrival))

    def on_settled(self, node: str, event: events.PathSettled) -> list[Outcome]:
        """A path that `--collect` names is quiet: begins to fetch what is not here."""
        begun = self._gatherer.begin(node, event)
        if isinstance(begun, Arrival):
            return self._settle(self._arrivals.begin(begun))
        return [] if begun is None else [begun]

    def incomplete(self) -> list[NotStored]:
        """Returns the steps of which only some ranks' parts were told, so far."""
        return [
            NotStored(
                node,
                step,
                f"checkpoint of step {step}: no part of it came from rank {fold_ranks(missing)}",
            )
            for step, (node, missing) in self._parts.missing().items()
            if step not in self._done
        ]

    def _is_here(self, step: int) -> bool:
        try:
            return Path(self._paths.checkpoint(step)).is_dir()
        except (OSError, ValueError):
            return False  # no number that a name could have; it is refused with its manifest

    def on_chunk(self, event: events.FileChunk) -> list[Outcome]:
        """A piece of a file came."""
        return self._guarded(lambda: self._fetcher.on_chunk(event))

    def on_ended(self, event: events.FileEnded) -> list[Outcome]:
        """A file's last piece came, or there is none."""
        return self._guarded(lambda: self._fetcher.on_ended(event))

    def on_node_absent(self, node: str) -> None:
        """A node's link broke; it may come back, and others may have the same files."""
        self._fetcher.on_absent(node)
        self._fetcher.pump()

    def on_node_present(self, node: str) -> None:
        """A node's link was made anew: goes on at the byte."""
        self._fetcher.on_present(node)
        self._fetcher.pump()

    def on_node_lost(self, node: str) -> list[Outcome]:
        """Nothing more comes from a node."""
        return self._settle(self._arrivals.take(self._fetcher.on_lost(node)))

    def tick(self) -> None:
        """Some time has passed, and with it what a bounded rate lets through."""
        self._fetcher.pump()

    def _guarded(self, act: Callable[[], list[Result]]) -> list[Outcome]:
        try:
            settled = self._arrivals.take(act())
        except OSError as error:
            settled = self._arrivals.fail_writing(error)
        return self._settle(settled)

    def _settle(self, settled: list[Settled]) -> list[Outcome]:
        outcomes = [self._settle_one(one) for one in settled]
        if outcomes:
            self._fetcher.tidy()
        if any(isinstance(outcome, Stored) for outcome in outcomes):
            outcomes += self._drop()
        return outcomes

    def _drop(self) -> list[Outcome]:
        """Removes what no rule keeps any longer; what is not here yet is not looked at."""
        if self._policy == _KEEP_ALL:
            return []
        dropped: list[Outcome] = []
        for directory in superfluous(self._paths, self._policy):
            remove(directory)
            dropped.append(Dropped(int(directory.name[5:]), directory.name))
        return dropped

    def _settle_one(self, settled: Settled) -> Outcome:
        arrival = settled.arrival if isinstance(settled, Failed) else settled
        if self._gatherer.owns(arrival):
            return self._gatherer.settle(settled)
        step = next(step for step, known in self._arriving.items() if known.arrival is arrival)
        if isinstance(settled, Failed):
            del self._arriving[step]
            return self._give_up(arrival.node, step, settled.reason)
        try:
            return self._store(step)
        except OSError as error:
            reason = self._arrivals.fail(arrival, error.strerror or str(error)).reason
            del self._arriving[step]
            return self._give_up(arrival.node, step, reason)

    def _store(self, step: int) -> Stored:
        known, final = self._arriving[step], Path(self._paths.checkpoint(step))
        arrival = known.arrival
        replace_json(arrival.directory / MANIFEST, _manifest(known))
        sync(arrival.directory)
        arrival.directory.rename(final)
        sync(final.parent)
        del self._arriving[step]
        self._done.add(step)
        for file in arrival.files:
            self._known.add(file, final / file.path)
        return Stored(arrival.node, step, arrival.total_bytes, arrival.linked_bytes, final)

    def _give_up(self, node: str, step: int, reason: str) -> NotStored:
        self._done.add(step)
        return NotStored(node, step, f"{node}: checkpoint of step {step}: {reason}")

    def close(self) -> None:
        """Lets go of every file; what is not whole is removed."""
        for known in list(self._arriving.values()):
            self._arrivals.fail(known.arrival, "given up")
        self._arriving.clear()
        self._gatherer.close()
        self._fetcher.close()


def _dropped_before(paths: RunPaths) -> set[int]:
    """Returns the steps that an earlier launcher of the run dropped; nodes may still tell them."""
    if not Path(paths.events).exists():
        return set()
    told = run_history.events(paths)
    return {event["step"] for event in told if event.get("event") == "checkpoint_dropped"}


def _placed(node: str, name: str) -> Callable[[PublishedFile], Holder]:
    return lambda file: Holder(node, name, file.path)


def _manifest(known: _Step) -> dict[str, object]:
    published = known.published
    files = [
        {
            "path": file.path,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "node": known.arrival.place(file).node,
        }
        for file in published.files
    ]
    return {"step": published.step, "meta": published.meta, "files": files}
