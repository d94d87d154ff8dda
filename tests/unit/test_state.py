"""The state machine, phase by phase: what each event means where it usually comes."""

from __future__ import annotations

import pytest

from launcher.core import phases, transitions
from launcher.core import state as core
from launcher.core.blame import Raised
from launcher.errors import EXIT_DELIVERY, EXIT_INTERRUPTED, EXIT_NODE, EXIT_TIMEOUT
from launcher.wire import events as wire

STREAMS = ("stdout", "stderr", "report")
TWO_NODES = {0: "n1", 1: "n1", 2: "n2"}


class Run:
    """A run under test; every method is something that a node or a person does."""

    def __init__(self, layout: dict[int, str] | None = None, grace_s: float = 5.0) -> None:
        self.layout = layout or TWO_NODES
        self.state = core.new_run(self.layout, grace_s=grace_s)
        self.now = 100.0
        self.actions: list[core.Action] = []

    @property
    def nodes(self) -> list[str]:
        return list(self.state.nodes)

    def phase(self) -> core.RunPhase:
        return self.state.phase

    @property
    def code(self) -> int:
        return core.exit_code(self.state)

    def take(self, node: str, event: core.AnyEvent) -> list[core.Action]:
        self.state, actions = transitions.step(self.state, node, event, self.now)
        self.actions += actions
        return actions

    def tick(self, after_s: float) -> list[core.Action]:
        self.now += after_s
        return self.take("", core.Tick())

    def prepare(self, *nodes: str, port: int = 20001) -> list[core.Action]:
        actions: list[core.Action] = []
        for node in nodes or self.nodes:
            self.take(node, core.NodeConnected())
            own = port if node == self.layout[0] else 0
            actions += self.take(node, wire.NodePrepared("tree", "py", own))
        return actions

    def start(self) -> None:
        self.prepare()
        for rank, node in self.layout.items():
            self.take(node, wire.WorkerStarted(rank, 0, 1000 + rank, 0.0, 0, 0))

    def exit(self, rank: int, code: int | None = 0, signal: int = 0, clock: float = 1.0) -> None:
        self.take(self.layout[rank], wire.WorkerExited(rank, 0, code, signal, clock, False))

    def stopped(self, *nodes: str) -> None:
        for node in nodes or self.nodes:
            self.take(node, wire.WorkersStopped(0, 2.0))

    def complete(self, *ranks: int) -> None:
        for rank in ranks or self.layout:
            for stream in STREAMS:
                self.take(self.layout[rank], core.OutputComplete(rank, stream))

    def all_end_well(self) -> None:
        for rank in self.layout:
            self.exit(rank)
        self.stopped()
        self.complete()


def kinds(actions: list[core.Action]) -> list[type]:
    return [type(action) for action in actions]


def test_a_run_without_trouble() -> None:
    run = Run()
    assert run.prepare("n1") == []
    assert run.prepare("n2") == [core.StartAll(0, 20001)]
    assert run.phase() is core.RunPhase.RUNNING
    run.take("n1", wire.WorkerStarted(0, 0, 1, 0.0, 0, 0))
    assert run.take("n1", wire.RendezvousListening(0, 0.5)) == [core.OpenGates(0)]
    run.all_end_well()
    assert run.phase() is core.RunPhase.ENDED
    assert kinds(run.actions) == [core.StartAll, core.OpenGates, core.EndAll]
    assert (run.code, run.state.root_cause, run.state.missing) == (0, None, ())


def test_no_worker_starts_before_every_node_is_ready() -> None:
    run = Run({0: "n1", 1: "n2", 2: "n3"})
    run.prepare("n1", "n3")
    run.tick(1000)
    assert run.actions == []
    assert run.prepare("n2") == [core.StartAll(0, 20001)]


def test_the_run_is_not_over_before_the_last_byte_and_the_last_checkpoint_are_here() -> None:
    run = Run({0: "n1"})
    run.start()
    run.exit(0)
    run.take("n1", core.CheckpointsPending(1))
    run.stopped()
    run.complete()
    assert run.phase() is core.RunPhase.COLLECTING
    assert run.take("n1", core.CheckpointsPending(0)) == [core.EndAll()]


@pytest.mark.parametrize("problem", [core.OutputComplete(0, "stdout", "torn")])
def test_a_job_that_ended_well_and_is_not_here_whole_is_74(problem: core.OutputComplete) -> None:
    run = Run({0: "n1"})
    run.start()
    run.take("n1", problem)
    run.all_end_well()
    assert run.code == EXIT_DELIVERY
    assert run.state.missing == ("torn",)


def test_a_checkpoint_that_cannot_be_brought_is_74() -> None:
    run = Run({0: "n1"})
    run.start()
    run.take("n1", core.CheckpointFailed("step 3: no room"))
    run.all_end_well()
    assert (run.code, run.state.missing) == (EXIT_DELIVERY, ("step 3: no room",))


def test_a_worker_whose_end_nobody_told_is_no_success() -> None:
    run = Run({0: "n1", 1: "n1"})
    run.start()
    run.exit(0)
    run.stopped()
    run.complete()
    assert run.phase() is core.RunPhase.ENDED
    assert run.code == EXIT_NODE
    assert "nobody knows how" in run.state.nodes["n1"].problem


# A node that fails


def test_a_prepared_node_without_an_agent_is_no_node_to_start_on() -> None:
    run = Run({0: "n1", 1: "n2"})
    run.prepare("n1")
    run.take("n1", core.AgentGone("it was killed"))
    run.prepare("n2")
    assert run.state.nodes["n1"].phase is core.NodePhase.FAILED
    assert core.StartAll not in kinds(run.actions)
    assert run.state.stop_reason is core.StopReason.NODE_FAILED


def test_other_nodes_get_a_moment_to_say_what_is_wrong_with_them_too() -> None:
    run = Run()
    run.take("n1", core.NodeFailed("no login", "look"))
    assert run.phase() is core.RunPhase.PREPARING
    run.take("n2", core.NodeFailed("no python", ""))
    assert kinds(run.actions) == [core.StopAll, core.EndAll]
    assert run.code == EXIT_NODE
    assert [node.problem for node in run.state.nodes.values()] == ["no login", "no python"]


@pytest.mark.parametrize("event", [core.NodeFailed("no login", ""), core.LinkLost("cut")])
def test_a_node_that_fails_does_not_wait_for_one_that_is_silent(event: core.AnyEvent) -> None:
    run = Run()
    run.take("n2", core.NodeConnected())
    run.take("n1", event)
    assert run.phase() is core.RunPhase.PREPARING
    assert run.tick(transitions.GATHER_FAILURES_S) == [core.StopAll(5.0)]
    run.tick(5.0 + phases.STOP_SLACK_S)
    assert run.phase() is core.RunPhase.ENDED
    assert run.code == EXIT_NODE


def test_a_node_that_is_still_connecting_is_not_waited_for() -> None:
    run = Run()
    run.prepare("n1")
    run.take("", core.Interrupted())
    run.stopped("n1")
    assert run.phase() is core.RunPhase.ENDED
    assert run.code == EXIT_INTERRUPTED


@pytest.mark.parametrize("event", [core.NodeFailed("disk full", ""), core.LinkLost("cut")])
def test_a_node_that_fails_while_the_job_runs_stops_the_others(event: core.AnyEvent) -> None:
    run = Run()
    run.start()
    assert run.take("n2", event) == [core.StopAll(5.0)]
    run.exit(0, None, core.SIGTERM)
    run.exit(1, 1)  # a handler of TERM that ends with 1
    run.stopped("n1")
    run.complete(0, 1)
    assert run.phase() is core.RunPhase.ENDED
    assert run.code == EXIT_NODE
    assert run.state.root_cause is None


def test_the_logs_of_the_other_nodes_are_waited_for_after_one_is_lost() -> None:
    run = Run()
    run.start()
    run.take("n2", core.LinkLost("cut"))
    run.exit(0, None, core.SIGTERM)
    run.exit(1, None, core.SIGTERM)
    run.stopped("n1")
    run.complete(0)
    assert run.phase() is core.RunPhase.COLLECTING
    run.complete(1)
    assert run.phase() is core.RunPhase.ENDED
    assert run.state.missing == tuple(
        f"n2: rank 2: the end of its {name}" for name in sorted(STREAMS)
    )


def test_a_node_that_is_lost_while_stopping_is_not_waited_for() -> None:
    run = Run()
    run.start()
    run.exit(0, 3)
    run.stopped("n1")
    run.complete(0, 1)
    assert run.phase() is core.RunPhase.STOPPING
    assert run.take("n2", core.LinkLost("cut")) == [core.EndAll(keep=True)]
    assert run.code == 3


def test_a_node_that_is_lost_while_collecting_leaves_what_it_owes_missing() -> None:
    run = Run({0: "n1"})
    run.start()
    run.exit(0)
    run.stopped()
    run.take("n1", core.CheckpointsPending(2))
    assert run.take("n1", core.LinkLost("cut")) == [core.EndAll(keep=True)]
    assert run.code == EXIT_DELIVERY
    assert "2 published checkpoint(s)" in run.state.missing


def test_a_node_that_cannot_stop_its_workers_is_given_up_and_named() -> None:
    run = Run()
    run.start()
    run.exit(0, 3)
    run.take("n1", wire.WorkersStopped(1, 2.0))
    run.take("n2", wire.WorkersStopped(0, 2.0))
    run.complete(2)
    run.tick(5.0 + phases.STOP_SLACK_S - 0.1)
    assert run.phase() is core.RunPhase.STOPPING
    run.tick(0.2)
    assert run.phase() is core.RunPhase.ENDED
    assert run.state.nodes["n1"].phase is core.NodePhase.LOST
    assert "did not say in time" in run.state.nodes["n1"].problem


def test_a_word_about_stopped_workers_before_any_started_means_nothing() -> None:
    run = Run()
    run.take("n1", core.NodeConnected())
    run.stopped("n1")
    assert run.prepare() == [core.StartAll(0, 20001)]


# A worker that fails


@pytest.mark.parametrize(
    ("code", "signal", "status"),
    [(1, 0, 1), (3, 0, 3), (125, 0, 125), (None, 9, 137), (None, 11, 139)],
)
def test_the_first_failure_stops_every_node_and_gives_the_code(
    code: int | None, signal: int, status: int
) -> None:
    run = Run()
    run.start()
    run.exit(2, code, signal)
    assert run.actions[-1] == core.StopAll(5.0)
    run.exit(0, None, core.SIGTERM, clock=2.0)
    run.exit(1, None, core.SIGKILL, clock=8.0)
    run.stopped()
    run.complete()
    assert run.phase() is core.RunPhase.ENDED
    assert run.code == status
    assert run.state.root_cause is not None
    assert run.state.root_cause.rank == 2


def test_an_abort_after_anothers_death_is_never_the_cause_where_that_is_known() -> None:
    run = Run()
    run.start()
    run.exit(0, None, core.SIGABRT, clock=6.0)
    run.exit(2, 3, clock=7.0)
    run.exit(1, None, core.SIGTERM, clock=8.0)
    assert run.state.root_cause is not None
    assert run.state.root_cause.rank == 2


def test_an_abort_is_the_cause_where_nothing_else_is_known() -> None:
    run = Run()
    run.start()
    run.exit(1, None, core.SIGABRT, clock=6.0)
    run.exit(0, None, core.SIGABRT, clock=6.1)
    run.exit(2, None, core.SIGKILL, clock=12.0)
    assert run.state.root_cause is not None
    assert run.state.root_cause.rank == 1
    assert run.code == 134


def test_the_earliest_failure_counts_by_corrected_clocks_not_by_arrival() -> None:
    run = Run()
    run.take("n2", core.ClockMeasured(300.0))
    run.start()
    run.exit(0, 1, clock=1001.0)
    run.exit(2, 7, clock=1300.5)  # 1000.5 here
    assert [end.rank for end in run.state.failures] == [2, 0]
    assert run.code == 7


def test_a_kill_before_the_failure_that_we_heard_of_first_is_not_ours() -> None:
    run = Run()
    run.start()
    run.exit(0, 1, clock=1001.0)
    run.exit(2, None, core.SIGKILL, clock=1000.5)
    run.exit(1, None, core.SIGKILL, clock=1006.5)
    assert run.state.root_cause is not None
    assert (run.state.root_cause.rank, run.code) == (2, 137)


def test_a_clean_end_of_one_worker_stops_nobody() -> None:
    run = Run()
    run.start()
    run.exit(1)
    run.exit(2)
    run.stopped("n2")
    assert run.phase() is core.RunPhase.RUNNING
    assert kinds(run.actions) == [core.StartAll]


def test_what_an_earlier_attempt_says_changes_nothing() -> None:
    run = Run()
    run.start()
    before = run.state
    assert run.take("n1", wire.WorkerExited(0, 7, 1, 0, 1.0, False)) == []
    assert run.take("n1", wire.RendezvousListening(7, 1.0)) == []
    assert run.state is before


# A person, and the clock


def test_ctrl_c_before_anything_is_connected_ends_at_once() -> None:
    run = Run()
    assert kinds(run.take("", core.Interrupted())) == [core.StopAll, core.EndAll]
    assert run.code == EXIT_INTERRUPTED


def test_ctrl_c_stops_the_workers_and_a_second_one_kills_them() -> None:
    run = Run()
    run.start()
    assert run.take("", core.Interrupted()) == [core.StopAll(5.0)]
    assert run.take("", core.Interrupted()) == [core.StopAll(0.0)]
    run.exit(0, 1)
    run.stopped()
    assert run.phase() is core.RunPhase.ENDED
    assert run.code == EXIT_INTERRUPTED


def test_ctrl_c_while_stopping_keeps_the_cause() -> None:
    run = Run()
    run.start()
    run.exit(0, 3)
    assert run.take("", core.Interrupted()) == []
    assert run.take("", core.Interrupted()) == [core.StopAll(0.0)]
    run.stopped()
    assert run.code == 3


def test_ctrl_c_while_collecting_waits_once_and_gives_up_the_second_time() -> None:
    run = Run({0: "n1"})
    run.start()
    run.exit(0)
    run.stopped()
    assert run.take("", core.Interrupted()) == []
    assert run.take("", core.Interrupted()) == [core.EndAll(keep=True)]
    assert run.code == EXIT_DELIVERY


@pytest.mark.parametrize("started", [False, True])
def test_the_time_limit_stops_the_run(started: bool) -> None:
    run = Run({0: "n1"})
    if started:
        run.start()
    else:
        run.take("n1", core.NodeConnected())
    assert run.take("", core.TimedOut()) == [core.StopAll(5.0)]
    assert run.take("", core.TimedOut()) == []
    if started:
        run.exit(0, None, core.SIGTERM)
    run.stopped()
    run.complete()
    assert run.phase() is core.RunPhase.ENDED
    assert run.code == EXIT_TIMEOUT


def test_the_time_limit_does_not_cut_what_is_being_collected() -> None:
    run = Run({0: "n1"})
    run.start()
    run.exit(0)
    run.stopped()
    assert run.take("", core.TimedOut()) == []
    run.complete()
    assert run.code == 0


def test_a_state_is_a_value() -> None:
    run = Run()
    before = run.state
    run.start()
    assert before == core.new_run(TWO_NODES)
    assert before.phase is core.RunPhase.PREPARING


@pytest.mark.parametrize("kind", ["BrokenPipeError", "ConnectionResetError"])
def test_a_broken_pipe_is_blamed_only_where_nothing_else_is_known(kind: str) -> None:
    run = Run()
    run.start()
    run.take("n1", core.WorkerRaised(0, Raised(kind, f"{kind}: gone")))
    run.exit(0, 1, clock=1.0)
    assert run.state.root_cause is not None and run.state.root_cause.rank == 0
    run.exit(2, 3, clock=2.0)
    assert run.state.root_cause.rank == 2


@pytest.mark.parametrize("signal", [core.SIGABRT, core.SIGPIPE])
def test_an_abort_or_a_broken_pipe_after_anothers_failure_is_not_the_cause(signal: int) -> None:
    run = Run()
    run.start()
    run.exit(0, None, signal, clock=1.0)
    run.exit(2, 1, clock=2.0)
    assert run.state.root_cause is not None and run.state.root_cause.rank == 2


def test_stop_from_elsewhere_is_no_failure() -> None:
    run = Run()
    run.start()
    assert kinds(run.take("n1", wire.StopOrdered(1.0))) == [core.StopAll]
    assert run.take("n2", wire.StopOrdered(1.1)) == []
    for rank in run.layout:
        run.exit(rank, None, core.SIGTERM)
    run.stopped()
    run.complete()
    assert (run.state.stop_reason, run.code) == (core.StopReason.STOPPED, EXIT_INTERRUPTED)
