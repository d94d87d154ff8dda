"""Whole runs with honest nodes: latencies, clocks that are off, deaths, and OneFlow's cascades."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from launcher.core import state as core
from launcher.wire import events as wire
from tests.unit.test_state_random import Driven, assert_good_end, many

ABORT_AFTER_S = 5.0
NEVER_S = 1000.0


@dataclass(frozen=True)
class Fate:
    """How a worker would end if nobody stopped it: when, and with what."""

    at_s: float
    exit_code: int | None
    signal: int

    @property
    def is_clean(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True)
class Machine:
    """A node: how long a word of it travels, how far its clock is ahead, what its workers do."""

    latency_s: float
    ahead_s: float
    heeds_term: bool
    fates: tuple[Fate, ...]


FATES = st.builds(
    lambda at, end: Fate(at, *end),
    # Close together, so that the words of two deaths overtake each other.
    st.integers(10, 80).map(lambda tenths: tenths / 10),
    st.sampled_from([(0, 0), (0, 0), (0, 0), (1, 0), (3, 0), (None, 9), (None, 11)]),
)
MACHINES = st.lists(
    st.builds(
        Machine,
        st.floats(0.0, 0.4),
        st.floats(-300.0, 300.0),
        st.booleans(),
        st.lists(FATES, min_size=1, max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=3,
)


@dataclass
class World:
    """Nodes that do as agents do, and one launcher, on one true clock."""

    machines: list[Machine]
    now: float = 0.0
    queue: list[tuple[float, int, str, core.AnyEvent]] = field(default_factory=list)
    ends: dict[int, tuple[float, int | None, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.count = itertools.count()
        ranks = itertools.count()
        self.ranks = {f"n{i}": [next(ranks) for _ in m.fates] for i, m in enumerate(self.machines)}
        layout = {rank: node for node, own in self.ranks.items() for rank in own}
        self.run = Driven(core.new_run(layout))
        self.named = {f"n{i}": machine for i, machine in enumerate(self.machines)}
        self.stop_s: dict[str, float] = {}

    def send(self, node: str, at_s: float, event: core.AnyEvent) -> None:
        arrival = at_s + self.named[node].latency_s
        heapq.heappush(self.queue, (arrival, next(self.count), node, event))

    def play(self) -> None:
        for node, machine in self.named.items():
            self.send(node, 0.0, core.NodeConnected())
            self.send(node, 0.0, core.ClockMeasured(machine.ahead_s))
            self.send(node, 0.1, wire.NodePrepared("t", "py", 20001 if node == "n0" else 0))
        while self.run.state.phase is not core.RunPhase.ENDED and self.queue:
            arrival, _, node, event = heapq.heappop(self.queue)
            done = len(self.run.actions)
            self.run.take(node, event, max(0.0, arrival - self.run.now))
            for action in self.run.actions[done:]:
                self.obey(action)

    def obey(self, action: core.Action) -> None:
        if isinstance(action, core.StartAll):
            self.plan_ends()
            for node, ranks in self.ranks.items():
                for rank in ranks:
                    self.send(
                        node, self.run.now, wire.WorkerStarted(rank, 0, 9, self.run.now, 0, 0)
                    )
            self.tell_ends()
        elif isinstance(action, core.StopAll):
            for node, machine in self.named.items():
                self.stop_s.setdefault(node, self.run.now + machine.latency_s)
            self.tell_ends()

    def plan_ends(self) -> None:
        """Each worker ends by its fate, or aborts some seconds after the first death."""
        fates = {
            rank: fate
            for node, ranks in self.ranks.items()
            for rank, fate in zip(ranks, self.named[node].fates, strict=True)
        }
        deaths = [fate.at_s for fate in fates.values() if not fate.is_clean]
        abort_s = self.run.now + min(deaths, default=NEVER_S) + ABORT_AFTER_S
        for rank, fate in fates.items():
            end_s = self.run.now + fate.at_s
            self.ends[rank] = (
                (abort_s, None, core.SIGABRT)
                if abort_s < end_s
                else (end_s, fate.exit_code, fate.signal)
            )

    def tell_ends(self) -> None:
        """Puts the ends on their way; what a stop changes is told anew."""
        self.queue = [
            entry
            for entry in self.queue
            if not (
                isinstance(entry[3], wire.WorkerExited | wire.WorkersStopped | core.OutputComplete)
                and entry[0] - self.named[entry[2]].latency_s >= self.run.now
            )
        ]
        heapq.heapify(self.queue)
        for node, ranks in self.ranks.items():
            last_s = 0.0
            for rank in ranks:
                end_s, code, signal = self.ends[rank]
                stop_s = self.stop_s.get(node, NEVER_S)
                if end_s > stop_s:
                    heeds = self.named[node].heeds_term
                    end_s = stop_s if heeds else min(end_s, stop_s + 5.0)
                    if heeds or end_s == stop_s + 5.0:
                        code, signal = None, core.SIGTERM if heeds else core.SIGKILL
                    self.ends[rank] = (end_s, code, signal)
                last_s = max(last_s, end_s)
                if end_s >= self.run.now:
                    clock, told = end_s + self.named[node].ahead_s, end_s >= stop_s
                    self.send(node, end_s, wire.WorkerExited(rank, 0, code, signal, clock, told))
            stopped_s = max(last_s, self.run.now)
            self.send(node, stopped_s, wire.WorkersStopped(0, stopped_s))
            for rank in ranks:
                for stream in ("stdout", "stderr", "report"):
                    self.send(node, stopped_s, core.OutputComplete(rank, stream))


@many
@given(MACHINES)
def test_the_cause_is_the_first_that_failed_of_itself(machines: list[Machine]) -> None:
    world = World(machines)
    world.play()
    assert_good_end(world.run)
    state = world.run.state
    fates = dict(enumerate(fate for machine in machines for fate in machine.fates))
    bad = {rank: fate for rank, fate in fates.items() if not fate.is_clean}
    if not bad:
        assert core.exit_code(state) == 0
        return
    first_s = min(fate.at_s for fate in bad.values())
    assert state.root_cause is not None
    # Two that fail within the measure of a clock may be told in either order.
    assert fates[state.root_cause.rank].at_s - first_s < 1e-6
    assert not bad[state.root_cause.rank].is_clean
    assert core.exit_code(state) == state.root_cause.status
