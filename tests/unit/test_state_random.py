"""The state machine under any order of events, torn, doubled, lost: it always comes to an end.

FLOWLAUNCH_SEQUENCES sets how many sequences are tried; `make check` takes a few hundred.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.core import state as core
from launcher.core import transitions
from launcher.core.blame import Raised
from launcher.errors import EXIT_INTERRUPTED, EXIT_NODE, EXIT_TIMEOUT
from launcher.wire import events as wire

SEQUENCES = int(os.environ.get("FLOWLAUNCH_SEQUENCES", "100"))
many = settings(max_examples=SEQUENCES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
STREAMS = ("stdout", "stderr", "report")
# Later than any deadline that a phase may have.
FAR_S = 1000.0
ORDER = list(core.RunPhase)

Step = tuple[str, core.AnyEvent, float]
LAYOUTS = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(
    lambda counts: dict(
        enumerate(f"n{node}" for node, count in enumerate(counts) for _ in range(count))
    )
)


RAISED = [Raised("ValueError", "ValueError: nan"), Raised("BrokenPipeError", "BrokenPipeError")]


def _events(ranks: int) -> st.SearchStrategy[core.AnyEvent]:
    rank, attempt = st.integers(0, ranks), st.sampled_from([0, 0, 0, 0, 1])
    clock = st.floats(0.0, 1000.0)
    ends = st.sampled_from(
        [(0, 0), (0, 0), (0, 0), (1, 0), (3, 0), (143, 0), (None, 6), (None, 9), (None, 15)]
    )
    exited = st.builds(
        lambda rank, attempt, end, *rest: wire.WorkerExited(rank, attempt, *end, *rest),
        rank, attempt, ends, clock, st.booleans(),
    )  # fmt: skip
    stream = st.sampled_from(STREAMS)
    return st.one_of(
        st.just(core.NodeConnected()),
        st.builds(wire.NodePrepared, st.just("t"), st.just("py"), st.sampled_from([0, 20001])),
        st.builds(wire.WorkerStarted, rank, attempt, st.just(7), clock, st.just(0), st.just(0)),
        st.builds(wire.RendezvousListening, attempt, clock),
        exited,
        exited,
        st.builds(wire.WorkersStopped, st.sampled_from([0, 0, 0, 2]), clock),
        st.builds(core.OutputComplete, rank, stream, st.sampled_from(["", "", "torn"])),
        st.builds(core.WorkerReported, rank, st.sampled_from(list(core.WorkerPhase)[2:4])),
        st.builds(core.CheckpointsPending, st.integers(0, 2)),
        st.just(core.CheckpointFailed("no room")),
        st.builds(core.ClockMeasured, st.floats(-300, 300)),
        st.just(core.Tick()),
        st.just(core.NodeFailed("no login", "")),
        st.just(wire.NodeUnusable("disk", "full", "")),
        st.just(core.LinkDropped("cut")),
        st.just(core.LinkRestored()),
        st.just(core.AgentGone("killed")),
        st.just(core.LinkLost("cut")),
        st.just(core.Interrupted()),
        st.just(core.TimedOut()),
        st.just(wire.Pong(1.0, 1.0)),
        st.builds(wire.StopOrdered, clock),
        st.builds(core.WorkerRaised, rank, st.sampled_from(RAISED)),
        st.builds(wire.WorkerDiagnosed, rank, attempt, st.sampled_from([b'["full"]', b"", b"1"])),
        st.just(core.FellSilent(30.0)),
        st.builds(wire.StacksCollected, st.sampled_from([0.0, 60.0]), st.just(b'{"0": ""}')),
    )


POLICIES = st.builds(
    core.RestartPolicy,
    max_restarts=st.integers(0, 2),
    min_nodes=st.sampled_from([None, 1, 2]),
    spares=st.sampled_from([(), ("s1",), ("s1", "s2")]),
    slots=st.just({"s1": 1, "s2": 2}),
)


@st.composite
def chaos(draw: st.DrawFn) -> tuple[dict[int, str], list[Step]]:
    """Events that no honest node sends in this order, at times that only go forward.

    Half of the sequences begin with every node ready, so that the later phases are reached.
    """
    layout = draw(LAYOUTS)
    nodes = [*dict.fromkeys(layout.values()), "stranger"]
    event = st.tuples(st.sampled_from(nodes), _events(len(layout)), st.floats(0.0, 4.0))
    steps = draw(st.lists(event, max_size=40))
    if draw(st.booleans()):
        ready = wire.NodePrepared("t", "py", 20001)
        steps = [(node, ready, 0.0) for node in nodes] + steps
    return layout, steps


@dataclass
class Driven:
    """A run that takes its events from a test, and checks what must hold after each."""

    state: core.RunState
    now: float = 0.0
    nodes: int = 0
    actions: list[core.Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = len(self.state.nodes)

    def take(self, node: str, event: core.AnyEvent, after_s: float = 0.0) -> None:
        self.now += after_s
        before = self.state
        self.state, actions = transitions.step(before, node, event, self.now)
        self.actions += actions
        if core.PrepareAgain not in map(type, actions):
            assert ORDER.index(self.state.phase) >= ORDER.index(before.phase), "a phase came again"
        if before.phase is core.RunPhase.ENDED:
            assert not actions
            assert self.state is before
        if self.state.phase in (core.RunPhase.STOPPING, core.RunPhase.PREPARING):
            assert not any(isinstance(action, core.EndAll) for action in self.actions)

    def tick(self, times: int = 4) -> None:
        for _ in range(times):
            self.take("", core.Tick(), FAR_S)

    def lose_all(self) -> None:
        """Takes every node away, in this attempt and in those that may follow."""
        while self.state.phase is not core.RunPhase.ENDED:
            nodes, before = list(self.state.nodes), self._begun()
            for node in nodes:
                self.take(node, core.LinkLost("gone"))
            self.tick(6)
            ended = self.state.phase is core.RunPhase.ENDED
            went_on = list(self.state.nodes) != nodes or self._begun() > before
            assert ended or went_on, "nobody is there, and it is still waited"

    def _begun(self) -> tuple[int, int]:
        """Returns how many attempts were given up, and which one is made."""
        return len(self.state.restarts), self.state.attempt

    def count(self, kind: type) -> int:
        return sum(isinstance(action, kind) for action in self.actions)


def assert_good_end(run: Driven) -> None:
    """What must hold of every run that is over."""
    state, code = run.state, core.exit_code(run.state)
    assert state.phase is core.RunPhase.ENDED
    assert run.count(core.EndAll) == 1
    assert isinstance(run.actions[-1], core.EndAll)
    assert run.count(core.StartAll) <= 1 + len(state.restarts)
    assert len(state.restarts) <= state.policy.max_restarts
    assert len(state.nodes) >= min(state.policy.min_nodes or 99, run.nodes)
    assert 0 <= code <= 255
    if state.stop_reason is not None:
        assert run.count(core.StopAll) >= 1
    if run.count(core.StartAll) and not run.count(core.StopAll):
        assert all(
            node.phase in (core.NodePhase.STOPPED, core.NodePhase.LOST)
            for node in state.nodes.values()
        )
    assert_code_is_true(state, code)
    assert_cause_is_primary(state)


def assert_code_is_true(state: core.RunState, code: int) -> None:
    clean = all(worker.exit and worker.exit.is_clean for worker in state.workers.values())
    if code == 0:
        assert clean
        assert not state.missing
        assert state.stop_reason is None
    if state.stop_reason in (core.StopReason.INTERRUPTED, core.StopReason.STOPPED):
        assert code == EXIT_INTERRUPTED
    elif state.stop_reason in (core.StopReason.TIMEOUT, core.StopReason.HUNG):
        assert code == EXIT_TIMEOUT
    elif state.root_cause is not None:
        assert code == state.root_cause.status != 0
    elif state.stop_reason is core.StopReason.NODE_FAILED:
        assert code == EXIT_NODE


def is_secondary(state: core.RunState, end: core.Exit) -> bool:
    raised = state.workers[end.rank].raised
    return end.signal == core.SIGABRT or (raised is not None and raised.kind == "BrokenPipeError")


def assert_cause_is_primary(state: core.RunState) -> None:
    cause = state.root_cause
    primary = [
        end
        for end in state.failures
        if not is_secondary(state, end)
        and not (end.after_stop and end.signal in (core.SIGTERM, core.SIGKILL))
    ]
    if cause is None:
        return
    assert not cause.is_clean
    assert not (cause.after_stop and cause.signal == core.SIGABRT)
    assert state.stop_reason is not core.StopReason.NODE_FAILED, "the node failed first"
    if primary:
        assert not is_secondary(state, cause)
        assert cause.at <= min(end.at for end in primary)


@many
@given(chaos(), POLICIES)
def test_any_events_and_then_no_node_end_the_run(
    drawn: tuple[dict[int, str], list[Step]], policy: core.RestartPolicy
) -> None:
    layout, steps = drawn
    run = Driven(core.new_run(layout, policy=policy))
    for step in steps:
        run.take(*step)
    run.lose_all()
    assert_good_end(run)


@many
@given(chaos(), POLICIES)
def test_any_events_and_then_silence_end_with_ctrl_c(
    drawn: tuple[dict[int, str], list[Step]], policy: core.RestartPolicy
) -> None:
    """Nodes that say nothing more cannot hold a person who presses Ctrl-C twice."""
    layout, steps = drawn
    run = Driven(core.new_run(layout, policy=policy))
    for step in steps:
        run.take(*step)
    run.take("", core.Interrupted())
    run.take("", core.Interrupted())
    run.tick()
    assert_good_end(run)


@many
@given(chaos())
def test_once_stopping_began_ticks_alone_end_the_waiting(
    drawn: tuple[dict[int, str], list[Step]],
) -> None:
    """Whoever does not say in time that its workers ended is given up, and not waited for again."""
    layout, steps = drawn
    run = Driven(core.new_run(layout))
    for step in steps:
        run.take(*step)
        if run.state.phase is core.RunPhase.STOPPING:
            break
    else:
        return
    told = [name for name, node in run.state.nodes.items() if node.phase is core.NodePhase.STOPPED]
    run.tick()
    assert run.state.phase in (core.RunPhase.COLLECTING, core.RunPhase.ENDED)
    for name in told:
        run.take(name, core.LinkLost("gone"))
    assert_good_end(run)


@many
@given(chaos(), st.data())
def test_an_event_that_comes_twice_changes_nothing(
    drawn: tuple[dict[int, str], list[Step]], data: st.DataObject
) -> None:
    layout, steps = drawn
    once, twice = Driven(core.new_run(layout)), Driven(core.new_run(layout))
    counted = (core.Interrupted, core.OutputComplete, core.CheckpointFailed)
    # A gate that is opened twice is open; everything else must be asked for once.
    for node, event, after_s in steps:
        once.take(node, event, after_s)
        twice.take(node, event, after_s)
        if not isinstance(event, counted):
            twice.take(node, event)
    assert once.state == twice.state

    def asked(run: Driven) -> list[core.Action]:
        return [action for action in run.actions if not isinstance(action, core.OpenGates)]

    assert asked(once) == asked(twice)
