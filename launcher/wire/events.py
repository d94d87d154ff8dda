"""The vocabulary: every message between a launcher and an agent, one class each.

Commands go from the launcher to the agent and are imperatives (`StartWorkers`); events go from
the agent to the launcher and are subject then past tense (`WorkerExited`). A class's name in
snake case is its name on the wire. A field named `data` travels as the frame's raw payload, the
others in its header. Times are seconds; `clock` is the node's wall clock (``time.time()``).

`VERSION` changes with the vocabulary. The launcher ships the agent that it speaks with, so two
versions meet only where a launcher attaches to a run that an older one started.

The module is long because it is a dictionary: one word after the other, and nothing else.
"""

import json
import re
from typing import Any, Dict, List, NamedTuple, Optional, Type, Union

from launcher.wire import codec

VERSION = 1
# The `problem` of NodeUnusable where a run's agent was looked for and does not live.
GONE = "gone"


class Hello(NamedTuple):
    """Opens a conversation, the first as well as each later one."""

    version: int
    lease_s: float


class PrepareRun(NamedTuple):
    """Asks a node to get ready. `data` is a `NodeOrder` (`launcher.wire.order`) as JSON."""

    data: bytes


class PutFile(NamedTuple):
    """A piece of a file of the job's folder that the node lacks."""

    sha256: str
    offset: int
    size: int
    data: bytes = b""


class StartWorkers(NamedTuple):
    """Starts every worker of the node at once; ranks above 0 wait at their import of oneflow.

    `resume_from` is the checkpoint that they start from, below the run's directory; "" is none.
    """

    attempt: int
    ctrl_port: int
    resume_from: str


class OpenGate(NamedTuple):
    """Rank 0 listens: lets the held ranks go on."""

    attempt: int


class StopWorkers(NamedTuple):
    """TERM to each worker's process group, KILL after the grace."""

    grace_s: float


class FollowOutput(NamedTuple):
    """Says from where on to send. `data`: JSON ``{"<rank>": {"<stream>": offset}}``, absent: 0."""

    data: bytes


class FetchFile(NamedTuple):
    """Asks for at most `size` bytes of a published file from an offset on.

    They are answered under `request`. Without a checkpoint, "", the path is one that `PathSettled`
    told.
    """

    request: int
    checkpoint: str
    path: str
    offset: int
    size: int


class BuildRuntime(NamedTuple):
    """Asks the node to build the OneFlow runtime unless it has a whole one."""


class Ping(NamedTuple):
    """Renews the lease and asks for the time."""

    sent: float


class EndRun(NamedTuple):
    """Nothing more is wanted of this run: the agent clears its directory away and leaves.

    With `keep`, not everything is where it belongs yet, and the directory stays.
    """

    keep: bool


class ReportFacts(NamedTuple):
    """Asks what the node is and has. `data`: JSON of a `launcher.agent.facts.Questions`."""

    data: bytes


class BindPorts(NamedTuple):
    """Asks the node to listen on ports as a run would, until it is asked anew.

    `data`: JSON ``{"ports": [...], "free": N, "greeting": text}``; `free` more ports are chosen by
    the node. Whoever dials one of them is told the greeting.
    """

    data: bytes


class DialPeers(NamedTuple):
    """Asks the node to dial others. `data`: JSON list of ``[address, port, greeting]``."""

    data: bytes
    timeout_s: float


class OfferWheels(NamedTuple):
    """Names the wheels that can be sent. `data`: JSON list of ``[name, bytes]``."""

    data: bytes


class PutWheel(NamedTuple):
    """A piece of a wheel that the node lacks, from where its own part of it ends."""

    name: str
    offset: int
    data: bytes = b""


class InstallRuntime(NamedTuple):
    """Asks for the runtime as BuildRuntime does, but made in a certain way.

    `interpreter` is the Python to build it on, or "" for one that the node finds; `offline` takes
    the wheels that were sent, and no index.
    """

    interpreter: str
    offline: bool


class RemoveRuntime(NamedTuple):
    """Asks the node to remove every runtime that flowlaunch built there."""


class ReleaseOutput(NamedTuple):
    """These bytes are on the launcher's disk: the node need not keep what is before the offsets.

    `data`: JSON ``{"<rank>": {"<stream>": offset}}``.
    """

    data: bytes


class OfferCheckpoint(NamedTuple):
    """Names a checkpoint that the workers are to start from. `data` is its MANIFEST.json."""

    name: str
    data: bytes


class PutCheckpointFile(NamedTuple):
    """A piece of a file of the offered checkpoint that the node lacks."""

    sha256: str
    offset: int
    data: bytes = b""


class AskStanding(NamedTuple):
    """A visitor asks how the run stands on the node."""


class StopRun(NamedTuple):
    """A visitor has the workers stopped."""

    grace_s: float


class FindRuns(NamedTuple):
    """A visitor asks what there is of every run of this user on the node."""


class CollectStacks(NamedTuple):
    """Asks where the workers' Python code is."""


class EndRuns(NamedTuple):
    """A visitor has processes of runs ended, and their directories removed.

    `data`: JSON ``{"end": [run, ...], "remove": [run, ...]}``.
    """

    grace_s: float
    data: bytes


class DropCheckpoint(NamedTuple):
    """The launcher has had a checkpoint and needs it no longer: the node need not keep it."""

    name: str


class ListCheckpoints(NamedTuple):
    """Asks a side conversation for every checkpoint that is published on the node."""


class AgentReady(NamedTuple):
    """The agent stands and has taken the connection."""

    version: int
    pid: int
    hostname: str
    python: str
    cores: int
    clock: float


class FilesWanted(NamedTuple):
    """The hashes that the node lacks. `data`: JSON list of sha256 in hex."""

    data: bytes


class NodePrepared(NamedTuple):
    """Everything is in place. `ctrl_port` is 0 except on the first node."""

    tree: str
    python: str
    ctrl_port: int


class NodeUnusable(NamedTuple):
    """The node cannot do its part; `problem` is a stable word, the rest is for people."""

    problem: str
    message: str
    hint: str


class RuntimeProgress(NamedTuple):
    """The build of the runtime goes on. `done` of `total` in bytes; `total` 0 where unknown."""

    stage: str
    done: int
    total: int


class RuntimeReady(NamedTuple):
    """A whole runtime is there. `built` is false where it already was."""

    python: str
    built: bool


class WorkerStarted(NamedTuple):
    """A worker's process exists. Its output begins at these bytes of its streams."""

    rank: int
    attempt: int
    pid: int
    clock: float
    stdout_at: int
    stderr_at: int


class RendezvousListening(NamedTuple):
    """Rank 0's ctrl_port accepts connections."""

    attempt: int
    clock: float


class WorkerOutput(NamedTuple):
    """Bytes that a worker wrote, exactly. `stream` is stdout, stderr or report.

    `clock` is when the node first saw that they were there.
    """

    rank: int
    stream: str
    offset: int
    clock: float
    data: bytes = b""


class WorkerExited(NamedTuple):
    """A worker ended. `exit_code` is None where a signal ended it, `signal` 0 where none did.

    `stopped`: its agent had begun to stop the workers by then.
    """

    rank: int
    attempt: int
    exit_code: Optional[int]
    signal: int
    clock: float
    stopped: bool


class OutputEnded(NamedTuple):
    """Nothing more will come of this stream: its whole size and the sha256 of all its bytes.

    `sha256` is "" where the node gave the first of them back before this agent came.
    """

    rank: int
    stream: str
    size: int
    sha256: str


class WorkersStopped(NamedTuple):
    """No process of the run lives on the node any more, or `left` of them still do."""

    left: int
    clock: float


class CheckpointPublished(NamedTuple):
    """A whole checkpoint stands on the node. `data` is its MANIFEST.json."""

    rank: int
    step: int
    name: str
    data: bytes = b""


class FileChunk(NamedTuple):
    """A piece of a fetched file."""

    request: int
    offset: int
    data: bytes = b""


class FileEnded(NamedTuple):
    """All `size` bytes that were asked for and are there were sent, or `error` says why not."""

    request: int
    size: int
    error: str


class Pong(NamedTuple):
    """Answers a ping: its `sent`, and the node's clock then."""

    sent: float
    clock: float


class RunEnded(NamedTuple):
    """The agent leaves; the last message of a run.

    `kept` is a directory that stays on the node, "" where none does: `files` of `bytes` in all,
    which the job wrote into its working directory and nobody collected.
    """

    kept: str
    files: int
    bytes: int


class FactsReported(NamedTuple):
    """What the node is and has. `data`: JSON, see `launcher.agent.facts`."""

    data: bytes


class PortsBound(NamedTuple):
    """The node listens. `data`: JSON ``{"bound": [...], "free": [...], "taken": {port: who}}``."""

    data: bytes


class PeersDialled(NamedTuple):
    """How each dial went, in the order asked. `data`: JSON list of words, see `dialling`."""

    data: bytes


class WheelsWanted(NamedTuple):
    """The wheels that the node lacks. `data`: JSON ``{name: bytes that it has of it}``."""

    data: bytes


class RuntimeRemoved(NamedTuple):
    """No runtime of flowlaunch's is there any more; `was_there` says whether one was."""

    was_there: bool


class NodeTroubled(NamedTuple):
    """Something is wrong on the node that does not end the run; `problem` is a stable word."""

    problem: str
    message: str


class CheckpointWanted(NamedTuple):
    """The hashes of an offered checkpoint that the node lacks. `data`: JSON list of sha256."""

    name: str
    data: bytes


class CheckpointPlaced(NamedTuple):
    """An offered checkpoint stands on the node, proven, and `sent_bytes` of it had to be sent.

    `directory` is where, below the run's directory: what `StartWorkers` calls `resume_from`.
    """

    name: str
    directory: str
    sent_bytes: int


class PathSettled(NamedTuple):
    """What `--collect` names has been quiet for a while.

    `data`: JSON with its ``files``, or with the ``error`` for which it cannot be taken.
    Their paths, like `path`, are relative to the working directory. A later message about the same
    path says that it changed since.
    """

    path: str
    data: bytes


class CheckpointsListed(NamedTuple):
    """Every checkpoint on the node was told, as `CheckpointPublished`; there are `found`."""

    found: int


class StopOrdered(NamedTuple):
    """Somebody else than the run's launcher has the workers stopped; told to the launcher."""

    clock: float


class StandingReported(NamedTuple):
    """How the run stands on the node. `data`: JSON, ``{}`` where no agent of it lives."""

    data: bytes


class RunStopped(NamedTuple):
    """The visitor's order was carried out. `data`: JSON list of the processes that are left."""

    data: bytes


class RunsFound(NamedTuple):
    """What there is of runs. `data`: JSON by the run's id, see `launcher.agent.leavings`."""

    data: bytes


class RunsEnded(NamedTuple):
    """What was ended and removed. `data`: JSON, see `launcher.agent.leavings.end_runs`."""

    data: bytes


class NodeMeasured(NamedTuple):
    """How busy the node was just before `clock`. `data`: JSON, see `launcher.agent.usage`."""

    clock: float
    data: bytes


class StacksCollected(NamedTuple):
    """Where the workers are. `data`: JSON ``{"<rank>": what py-spy or faulthandler wrote}``.

    `quiet_s`: for how long none of them has written anything, by the node's clock.
    """

    quiet_s: float
    data: bytes


class WorkerDiagnosed(NamedTuple):
    """What the node knows of a worker's end. `data`: JSON list of sentences."""

    rank: int
    attempt: int
    data: bytes


class LeaseEnded(NamedTuple):
    """No launcher was heard of for `lease_s`: the agent has begun to stop the workers."""

    lease_s: float
    clock: float


Command = Union[
    Hello,
    PrepareRun,
    PutFile,
    StartWorkers,
    OpenGate,
    StopWorkers,
    FollowOutput,
    FetchFile,
    BuildRuntime,
    Ping,
    EndRun,
    ReportFacts,
    BindPorts,
    DialPeers,
    OfferWheels,
    PutWheel,
    InstallRuntime,
    RemoveRuntime,
    ReleaseOutput,
    OfferCheckpoint,
    PutCheckpointFile,
    ListCheckpoints,
    DropCheckpoint,
    AskStanding,
    StopRun,
    FindRuns,
    EndRuns,
    CollectStacks,
]
Event = Union[
    AgentReady,
    FilesWanted,
    NodePrepared,
    NodeUnusable,
    RuntimeProgress,
    RuntimeReady,
    WorkerStarted,
    RendezvousListening,
    WorkerOutput,
    WorkerExited,
    OutputEnded,
    WorkersStopped,
    CheckpointPublished,
    FileChunk,
    FileEnded,
    Pong,
    RunEnded,
    FactsReported,
    PortsBound,
    PeersDialled,
    WheelsWanted,
    RuntimeRemoved,
    NodeTroubled,
    CheckpointWanted,
    CheckpointPlaced,
    PathSettled,
    CheckpointsListed,
    StopOrdered,
    StandingReported,
    RunStopped,
    RunsFound,
    RunsEnded,
    NodeMeasured,
    WorkerDiagnosed,
    StacksCollected,
    LeaseEnded,
]
Message = Union[Command, Event]

_COMMANDS = (
    Hello, PrepareRun, PutFile, StartWorkers, OpenGate, StopWorkers, FollowOutput, FetchFile,
    BuildRuntime, Ping, EndRun,
    ReportFacts, BindPorts, DialPeers, OfferWheels, PutWheel, InstallRuntime, RemoveRuntime,
    ReleaseOutput,
    OfferCheckpoint, PutCheckpointFile, ListCheckpoints, DropCheckpoint,
    AskStanding, StopRun, FindRuns, EndRuns, CollectStacks,
)  # fmt: skip
_EVENTS = (
    AgentReady, FilesWanted, NodePrepared, NodeUnusable, RuntimeProgress, RuntimeReady,
    WorkerStarted, RendezvousListening, WorkerOutput, WorkerExited, OutputEnded,
    WorkersStopped, CheckpointPublished, FileChunk, FileEnded, Pong, RunEnded,
    FactsReported, PortsBound, PeersDialled, WheelsWanted, RuntimeRemoved,
    NodeTroubled,
    CheckpointWanted, CheckpointPlaced, PathSettled, CheckpointsListed,
    StopOrdered, StandingReported, RunStopped, RunsFound, RunsEnded,
    NodeMeasured, WorkerDiagnosed, StacksCollected,
    LeaseEnded,
)  # fmt: skip


def snake_case(name: str) -> str:
    """Returns a class name as it stands on the wire and in events.jsonl."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


KINDS: Dict[str, Type[Any]] = {snake_case(cls.__name__): cls for cls in _COMMANDS + _EVENTS}
_NAMES = {cls: kind for kind, cls in KINDS.items()}


def kind_of(message: Message) -> str:
    """Returns a message's name on the wire.

    >>> kind_of(EndRun(keep=False))
    'end_run'
    """
    return _NAMES[type(message)]


def frame_of(message: Message) -> "tuple[bytes, bytes]":
    """Returns the header line of a message's frame, and its payload: so it need not be copied."""
    fields = dict(message._asdict())
    payload = fields.pop("data", b"")
    return codec.header_of(kind_of(message), fields, payload), payload


def encode(message: Message) -> bytes:
    r"""Returns the frame of a message.

    >>> encode(WorkerOutput(rank=3, stream="stdout", offset=0, clock=1.5, data=b"hi\n"))
    b'{"t":"worker_output","rank":3,"stream":"stdout","offset":0,"clock":1.5,"n":3}\nhi\n'
    """
    return b"".join(frame_of(message))


def decode(frame: codec.Frame) -> Message:
    """Returns the message of a frame.

    Raises:
        codec.WireError: the kind is unknown, or its fields are not the ones that it has.
    """
    cls = KINDS.get(frame.kind)
    if cls is None:
        raise codec.WireError("unknown message %r" % frame.kind)
    fields = dict(frame.fields)
    if "data" in cls._fields:
        fields["data"] = frame.payload
    try:
        message: Message = cls(**fields)
    except TypeError as error:
        raise codec.WireError("%s: %s" % (frame.kind, error)) from None
    _check_types(frame.kind, message)
    return message


def _check_types(kind: str, message: Message) -> None:
    for name, value in message._asdict().items():
        if not isinstance(value, _ALLOWED[type(message)][name]) or (
            isinstance(value, bool) and bool not in _ALLOWED[type(message)][name]
        ):
            raise codec.WireError("%s: %s cannot be %r" % (kind, name, value))


def _allowed(annotation: Any) -> "tuple[type, ...]":
    if annotation == Optional[int]:
        return (int, type(None))
    return (float, int) if annotation is float else (annotation,)


_ALLOWED = {
    cls: {name: _allowed(kind) for name, kind in cls.__annotations__.items()} for cls in _NAMES
}


def pack_json(value: Any) -> bytes:
    """Returns a JSON value as payload bytes."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode("utf-8")


def unpack_json(data: bytes) -> Any:
    """Returns the JSON value in payload bytes.

    Raises:
        codec.WireError: the bytes are no JSON.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise codec.WireError("payload is no JSON: %s" % error) from None


__all__: List[str] = [cls.__name__ for cls in _COMMANDS + _EVENTS] + [
    "KINDS", "VERSION", "Command", "Event", "Message", "decode", "encode", "frame_of",
    "kind_of", "pack_json", "unpack_json",
]  # fmt: skip
