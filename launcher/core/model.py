"""The values that a run is made of. All frozen; change is `dataclasses.replace`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

EMPTY: Mapping[str, str] = MappingProxyType({})


class TransportKind(enum.Enum):
    """How a node is reached."""

    LOCAL = "local"
    SSH = "ssh"


@dataclass(frozen=True)
class SshSpec:
    """What the manifest says of a node's SSH login. None is left to ``~/.ssh/config``.

    Attributes:
        host: what the launcher dials, or an alias of ``~/.ssh/config``.
        host_key: a pinned fingerprint, ``SHA256:…`` as OpenSSH prints it.
        accept_new: record an unknown host key and go on; a changed one is always refused.
    """

    host: str
    port: int | None = None
    user: str | None = None
    identity: str | None = None
    jump: str | None = None
    host_key: str | None = None
    accept_new: bool = False


@dataclass(frozen=True)
class NodeSpec:
    """One machine of the cluster.

    Attributes:
        name: how the person calls it; unique in the cluster.
        addr: what the other nodes dial (the data network), numeric IPv4 or a name to resolve.
        slots: workers to start there, or None for one a GPU.
        python: the workers' interpreter, or "auto" for flowlaunch's own runtime.
        workdir: where runs keep their working directories there; None is ``~/.flowlaunch``.
    """

    name: str
    addr: str
    transport: TransportKind
    slots: int | None = 1
    python: str = "auto"
    workdir: str | None = None
    env: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    ssh: SshSpec | None = None


class Extreme(enum.Enum):
    """Which end of a metric is its best."""

    MIN = "min"
    MAX = "max"


@dataclass(frozen=True)
class BestPolicy:
    """Which checkpoint is the best: the one whose reported `metric` is at its `mode`."""

    metric: str
    mode: Extreme = Extreme.MIN


@dataclass(frozen=True)
class CheckpointPolicy:
    """Which checkpoints are kept here. A checkpoint stays where any of the rules keeps it.

    Attributes:
        keep: the newest so many; None keeps all.
        keep_every: also each whose step is a multiple of it.
        keep_best: also the best one.
    """

    keep: int | None = None
    keep_every: int | None = None
    keep_best: BestPolicy | None = None


@dataclass(frozen=True)
class LogPolicy:
    """What a node keeps of a worker's output: at most `max_bytes` a stream, None for all."""

    max_bytes: int | None = None


@dataclass(frozen=True)
class ClusterSpec:
    """A manifest, validated.

    Attributes:
        ctrl_port: the rendezvous port on the first node, or None for a free one at each attempt.
        data_port: the base of the workers' data ports, or None for any.
        nodes: in manifest order, which is rank order.
        spares: nodes that take part only where another one drops out.
        collect: patterns of paths in the worker's working directory that come home too.
        source: the file that it came from, "" for none.
    """

    name: str
    nodes: tuple[NodeSpec, ...]
    ctrl_port: int | None = None
    data_port: int | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    env: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    checkpoints: CheckpointPolicy = CheckpointPolicy()
    spares: tuple[NodeSpec, ...] = ()
    source: str = ""
    collect: tuple[str, ...] = ()
    logs: LogPolicy = LogPolicy()


@dataclass(frozen=True)
class JobSpec:
    """What to run.

    Attributes:
        name: how runs of it are called.
        target: the script's path relative to the shipped folder, or the module's name.
        is_module: whether target is a module (``-m``).
        args: what the job is given, verbatim.
        workdir: the worker's working directory relative to the shipped folder, "." at its top.
    """

    name: str
    target: str
    is_module: bool = False
    args: tuple[str, ...] = ()
    workdir: str = "."


@dataclass(frozen=True)
class RankSpec:
    """One worker.

    Attributes:
        argv: what follows the interpreter.
        env: everything that flowlaunch sets for it; what only the node knows is `ON_NODE`.
    """

    rank: int
    local_rank: int
    node: str
    node_rank: int
    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Resume:
    """A checkpoint of this machine that the workers start from.

    Attributes:
        run: the id of the run that published it, "" where it is no run's.
        directory: where it is here.
    """

    run: str
    step: int
    directory: str


ON_NODE = "<set on the node>"


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that `run` does, decided before it does anything.

    Attributes:
        nodes: the nodes that take part, in rank order.
        ctrl_port: None is a free one, chosen on the first node at each attempt.
        uneven: the nodes have different numbers of workers.
        resume: the checkpoint that the workers start from, None for none.
        collect: patterns of paths in the working directory that come home too.
    """

    cluster: str
    job: JobSpec
    nodes: tuple[NodeSpec, ...]
    ranks: tuple[RankSpec, ...]
    ctrl_port: int | None
    data_port: int | None
    uneven: bool
    checkpoints: CheckpointPolicy = CheckpointPolicy()
    logs: LogPolicy = LogPolicy()
    resume: Resume | None = None
    collect: tuple[str, ...] = ()

    @property
    def world_size(self) -> int:
        """How many workers there are in all."""
        return len(self.ranks)

    def ranks_of(self, node: str) -> tuple[RankSpec, ...]:
        """Returns the workers of one node, by local rank."""
        return tuple(rank for rank in self.ranks if rank.node == node)
