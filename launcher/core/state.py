"""How a run stands, what can happen to it, and what can be done about it. Values only.

        +------------- RESTARTING <-- while restarts are left
        v                  |
    PREPARING -> RUNNING -> STOPPING -> COLLECTING -> ENDED
        |           |                       ^
        |           +--- all ended with 0 --+
        +--- a node cannot be used ---------+

What follows from what is decided in `launcher.core.transitions`.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from launcher.core.blame import Raised
from launcher.core.hang import Suspicion
from launcher.errors import EXIT_DELIVERY, EXIT_INTERRUPTED, EXIT_NODE, EXIT_TIMEOUT
from launcher.wire import events as wire

SIGABRT, SIGKILL, SIGPIPE, SIGTERM = 6, 9, 13, 15
# Who has not begun to import oneflow so long after the start has something else to do first.
LATE_IMPORT_S = 5.0
ALL_STREAMS = frozenset(("stdout", "stderr", "report"))


class RunPhase(enum.Enum):
    """How far the run is."""

    PREPARING = "preparing"
    RUNNING = "running"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    COLLECTING = "collecting"
    ENDED = "ended"


class NodePhase(enum.Enum):
    """How far a node is."""

    CONNECTING = "connecting"
    PREPARING = "preparing"
    PREPARED = "prepared"
    RUNNING = "running"
    ORPHANED = "without an agent"
    STOPPED = "stopped"
    ENDED = "ended"
    FAILED = "failed"
    LOST = "lost"


class WorkerPhase(enum.Enum):
    """How far a worker is."""

    WAITING = "waiting"
    STARTED = "started"
    IMPORTING = "importing oneflow"
    JOINED = "joined"
    EXITED = "exited"


class StopReason(enum.Enum):
    """Why the workers are stopped before all have ended with 0."""

    WORKER_FAILED = "worker failed"
    NODE_FAILED = "node failed"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    HUNG = "hung"
    START_TIMEOUT = "start timeout"
    LEASE = "its launcher was gone for too long"


# What happens on this side, besides the events of the wire.


class NodeConnected(NamedTuple):
    """Login works and the agent answers."""


class NodeFailed(NamedTuple):
    """A node cannot be used; the words are for people."""

    message: str
    hint: str


class LinkDropped(NamedTuple):
    """The connection to a node is gone; its agent goes on, and the link is made anew."""

    message: str


class LinkRestored(NamedTuple):
    """The connection to a node's agent stands again."""


class AgentGone(NamedTuple):
    """The node answers, but the run's agent does not live there any more."""

    message: str


class LinkLost(NamedTuple):
    """The connection to a node is gone and is not coming back."""

    message: str


class WorkerReported(NamedTuple):
    """A worker's bootstrap says how far it is."""

    rank: int
    phase: WorkerPhase


class WorkerRaised(NamedTuple):
    """An exception ends a worker's program."""

    rank: int
    raised: Raised


class ClockMeasured(NamedTuple):
    """A node's clock is this many seconds ahead of the launcher's."""

    ahead_s: float


class Interrupted(NamedTuple):
    """Ctrl-C, once more."""


class FellSilent(NamedTuple):
    """Nothing has come of any rank for so long that the run may hang."""

    quiet_s: float


class TimedOut(NamedTuple):
    """The run has taken as long as it may."""


class OutputComplete(NamedTuple):
    """One stream is here whole, or `problem` says what is not."""

    rank: int
    stream: str
    problem: str = ""


class CheckpointsPending(NamedTuple):
    """So many published checkpoints are still on their way."""

    pending: int


class CheckpointFailed(NamedTuple):
    """A published checkpoint cannot be brought here."""

    problem: str


class WaysTried(NamedTuple):
    """The nodes have dialled each other, `dials` times in all, and `failed` of them in vain."""

    dials: int
    failed: int


class Tick(NamedTuple):
    """Time has passed."""


LocalEvent = (
    NodeConnected
    | NodeFailed
    | LinkDropped
    | LinkRestored
    | AgentGone
    | LinkLost
    | WorkerReported
    | WorkerRaised
    | ClockMeasured
    | Interrupted
    | FellSilent
    | TimedOut
    | OutputComplete
    | CheckpointsPending
    | CheckpointFailed
    | WaysTried
    | Tick
)
AnyEvent = LocalEvent | wire.Message


# What is to be done.


class StartAll(NamedTuple):
    """Start every worker on every node."""

    attempt: int
    ctrl_port: int


class OpenGates(NamedTuple):
    """Let the held ranks go on."""

    attempt: int


class StopAll(NamedTuple):
    """Stop whatever runs, on every node that can be reached."""

    grace_s: float


class PrepareAgain(NamedTuple):
    """Get every node of the run ready for another attempt, or with other nodes than before."""

    attempt: int


class AskStacks(NamedTuple):
    """Ask every agent where its workers are."""


class EndAll(NamedTuple):
    """Nothing more is wanted of any node; with `keep`, nodes keep what is not here whole."""

    keep: bool = False


Action = StartAll | OpenGates | StopAll | PrepareAgain | AskStacks | EndAll


@dataclass(frozen=True)
class NodeState:
    """One node.

    Attributes:
        ahead_s: its clock minus the launcher's, seconds.
        problem: why it cannot be used, or was lost; "" while it can.
        cut: why there is no connection at the moment; "" while there is.
    """

    phase: NodePhase = NodePhase.CONNECTING
    ahead_s: float = 0.0
    problem: str = ""
    hint: str = ""
    cut: str = ""

    @property
    def is_reachable(self) -> bool:
        """Whether it can still be told and still tells something."""
        return self.phase not in (NodePhase.FAILED, NodePhase.LOST, NodePhase.ENDED)


@dataclass(frozen=True)
class Exit:
    """How a worker ended.

    Attributes:
        at: when, by the launcher's wall clock, seconds.
        after_stop: it came after this run had told its node to stop the workers.
    """

    rank: int
    exit_code: int | None
    signal: int
    at: float
    after_stop: bool

    @property
    def is_clean(self) -> bool:
        """Whether the worker did all it had to."""
        return self.exit_code == 0

    @property
    def in_words(self) -> str:
        """How it ended, as the end of a sentence.

        >>> Exit(0, None, 9, 0.0, False).in_words, Exit(0, 3, 0, 0.0, False).in_words
        ('was ended by SIGKILL', 'ended with exit code 3')
        >>> Exit(0, 137, 0, 0.0, False).in_words
        'ended with exit code 137, which it chose itself: no signal ended it'
        """
        if self.exit_code is not None:
            own = ", which it chose itself: no signal ended it" if self.exit_code > 127 else ""
            return f"ended with exit code {self.exit_code}{own}"
        try:
            return f"was ended by {signal.Signals(self.signal).name}"
        except ValueError:
            return f"was ended by signal {self.signal}"

    @property
    def status(self) -> int:
        """The code that a shell would show."""
        return 128 + self.signal if self.exit_code is None else self.exit_code


@dataclass(frozen=True)
class WorkerState:
    """One worker.

    Attributes:
        open_streams: those whose last byte is not here yet.
        torn_streams: those of which something is missing here.
        since: when it came into this phase, by the launcher's monotonic clock.
        raised: the exception that ended its program, None where none did.
        facts: what its node knows of its end, a sentence each.
    """

    node: str
    phase: WorkerPhase = WorkerPhase.WAITING
    pid: int = 0
    exit: Exit | None = None
    open_streams: frozenset[str] = ALL_STREAMS
    torn_streams: frozenset[str] = frozenset()
    since: float = 0.0
    raised: Raised | None = None
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Restart:
    """Why an attempt was given up and followed by another.

    Attributes:
        attempt: the one that failed, from 0 on.
        cause: what failed first, in words.
        at: when, by the launcher's monotonic clock, seconds.
    """

    attempt: int
    cause: str
    at: float


@dataclass(frozen=True)
class RestartPolicy:
    """What may be done after a failure.

    Attributes:
        max_restarts: how many further attempts there may be.
        min_nodes: with how many nodes it goes on at least; None is with all of them.
        spares: nodes that take the place of one that cannot be used.
        slots: workers on each node that may take part.
    """

    max_restarts: int = 0
    min_nodes: int | None = None
    spares: tuple[str, ...] = ()
    slots: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class RunState:
    """Everything that is known of a run.

    Attributes:
        deadline: when, by the launcher's monotonic clock, waiting in this phase is over.
        missing: what could not be brought here whole, one line each.
        suspicion: why the run may hang, None while nothing looks like it.
        is_open: the held ranks were let go on.
        start_limit_s: what may pass until every rank has joined; None is for ever.
        running_since: when the workers were started, by the same clock.
        policy: what may be done after a failure.
        spares: those of the policy that have not taken part yet.
        restarts: the attempts before this one.
    """

    nodes: Mapping[str, NodeState]
    workers: Mapping[int, WorkerState]
    phase: RunPhase = RunPhase.PREPARING
    attempt: int = 0
    stop_reason: StopReason | None = None
    grace_s: float = 5.0
    interrupts: int = 0
    ctrl_port: int = 0
    checkpoints_pending: int = 0
    suspicion: Suspicion | None = None
    deadline: float | None = None
    missing: tuple[str, ...] = ()
    is_open: bool = False
    start_limit_s: float | None = None
    running_since: float = 0.0
    policy: RestartPolicy = RestartPolicy()
    spares: tuple[str, ...] = ()
    restarts: tuple[Restart, ...] = ()

    @property
    def layout(self) -> dict[int, str]:
        """The node of each rank."""
        return {rank: worker.node for rank, worker in self.workers.items()}

    @property
    def failures(self) -> list[Exit]:
        """Every worker's end that was not clean, by time."""
        ends = [worker.exit for worker in self.workers.values()]
        bad = [end for end in ends if end is not None and not end.is_clean]
        return sorted(bad, key=lambda end: (end.at, end.rank))

    @property
    def root_cause(self) -> Exit | None:
        """The worker that failed first of itself; None where none did.

        An end that our own TERM brought about is never one. OneFlow's abort after another's death,
        and a broken pipe, is one only where no other failure is known. Where a node failed first,
        no worker did.
        """
        first = next((end for end in self.failures if not end.after_stop), None)
        if first is None and self.stop_reason is StopReason.NODE_FAILED:
            return None
        own = [end for end in self.failures if not _is_our_doing(end, first)]
        primary = [end for end in own if not self._is_secondary(end)]
        return next(iter(primary or own), None)

    def _is_secondary(self, end: Exit) -> bool:
        raised = self.workers[end.rank].raised
        return end.signal in (SIGABRT, SIGPIPE) or (raised is not None and raised.is_secondary)


def _is_our_doing(end: Exit, first: Exit | None) -> bool:
    """Says whether we ended a worker; `first` is the failure for which we began to."""
    if not end.after_stop or end.signal not in (SIGTERM, SIGKILL, SIGABRT):
        return False
    # The word of a slow link comes late. Our own KILL comes a whole grace after that failure, so
    # clocks that are a little off do not take it for an earlier one.
    return end.signal != SIGKILL or first is None or end.at >= first.at


def new_run(
    workers: Mapping[int, str],
    *,
    grace_s: float = 5.0,
    start_limit_s: float | None = None,
    policy: RestartPolicy = RestartPolicy(),
) -> RunState:
    """Returns the state before anything was done; `workers` maps each rank to its node."""
    return RunState(
        nodes=MappingProxyType({node: NodeState() for node in dict.fromkeys(workers.values())}),
        workers=MappingProxyType({rank: WorkerState(node) for rank, node in workers.items()}),
        grace_s=grace_s,
        start_limit_s=start_limit_s,
        policy=policy,
        spares=policy.spares,
    )


_TIME_LIMITS = (StopReason.TIMEOUT, StopReason.START_TIMEOUT, StopReason.HUNG)


def needs_no_launcher(state: RunState, now: float) -> bool:
    """Whether every worker has started and none waits for a word from here.

    A program may import oneflow late or never: then nobody listens, and no rank is to be held.
    """
    phases = {worker.phase for worker in state.workers.values()}
    if WorkerPhase.WAITING in phases:
        return False
    is_late = now >= state.running_since + LATE_IMPORT_S
    return state.is_open or (is_late and WorkerPhase.IMPORTING not in phases)


def exit_code(state: RunState) -> int:
    """Returns what the command ends with."""
    if state.stop_reason in (StopReason.INTERRUPTED, StopReason.STOPPED, StopReason.LEASE):
        return EXIT_INTERRUPTED
    if state.stop_reason in _TIME_LIMITS:
        return EXIT_TIMEOUT
    cause = state.root_cause
    if cause is not None:
        return cause.status
    if state.stop_reason is StopReason.NODE_FAILED:
        return EXIT_NODE
    if any(end.status for end in state.failures):
        return state.failures[0].status
    return EXIT_DELIVERY if state.missing else 0
