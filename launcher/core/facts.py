"""What nodes said of themselves and of the ways between them, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from launcher.core.model import EMPTY, NodeSpec


@dataclass(frozen=True)
class Address:
    """One IPv4 address of a node.

    Attributes:
        interface: the interface's name.
        prefix: the length of its network's.
        mbits: what the link can carry, None where that is not known.
    """

    interface: str
    address: str
    prefix: int
    mbits: int | None = None


@dataclass(frozen=True)
class OneFlowFacts:
    """What a worker would import there.

    Attributes:
        path: the interpreter.
        python: its version.
        oneflow: version and commit, "" where `error` says why there is none.
        missing: flowlaunch's own runtime is not there.
    """

    path: str = ""
    python: str = ""
    oneflow: str = ""
    numpy: str = ""
    error: str = ""
    missing: bool = False


@dataclass(frozen=True)
class Leftover:
    """What another run left on a node; `pid` of its agent, 0 where nothing of it lives."""

    run: str
    node: str
    pid: int


@dataclass(frozen=True)
class DataFacts:
    """What a path given with --data holds; `error` says why it cannot be read."""

    path: str
    kind: str = ""
    files: int = 0
    bytes: int = 0
    sha256: str = ""
    error: str = ""


@dataclass(frozen=True)
class NodeFacts:
    """One node, as its agent sees it.

    Attributes:
        shm_free_bytes: room in /dev/shm.
        home_free_bytes: room where runs keep their working directories.
        cache_free_bytes: room where the runtime is kept.
        open_files: the limit for a process, None for none; `processes` likewise for the user.
        login_address: its own address in the login that the launcher came by.
        gpus: the model of each, "" where that is not known.
        same: what should be equal on all nodes.
        interpreter: the minor version of the Python that a runtime would be built on, "" for none.
    """

    hostname: str = ""
    user: str = ""
    cores: int = 0
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    shm_free_bytes: int | None = None
    home_free_bytes: int | None = None
    cache_free_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    login_address: str = ""
    addresses: tuple[Address, ...] = ()
    gpus: tuple[str, ...] = ()
    gpu_problem: str = ""
    oneflow: OneFlowFacts | None = None
    same: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    leftovers: tuple[Leftover, ...] = ()
    data: tuple[DataFacts, ...] = ()
    interpreter: str = ""


@dataclass(frozen=True)
class Trouble:
    """Why a node could not be asked, or did not answer."""

    message: str
    hint: str = ""


@dataclass(frozen=True)
class NodeSurvey:
    """One node, as the launcher found it.

    Attributes:
        node: with a numeric address, where it has one.
        slots: its workers, None where that depends on GPUs that nobody counted.
        trouble: None where the node answered to the end.
        facts: None where it could not be asked.
        ahead_s: how far its clock is ahead of the launcher's.
        login_s: from the dial to the agent's first word.
        bound: the ports it listened on; `taken`: who has the others that a run needs.
    """

    node: NodeSpec
    slots: int | None = None
    trouble: Trouble | None = None
    facts: NodeFacts | None = None
    ahead_s: float | None = None
    login_s: float | None = None
    bound: tuple[int, ...] = ()
    taken: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name


@dataclass(frozen=True)
class Dial:
    """One port of one node, dialled from one node; `word` is "ok" or how it failed."""

    source: str
    target: str
    port: int
    word: str

    @property
    def answered(self) -> bool:
        """Whether the agent meant was reached."""
        return self.word == ANSWERED


ANSWERED = "ok"
REFUSED = "refused"
NO_ANSWER = "timeout"
UNREACHABLE = "unreachable"
STRANGER = "stranger"


@dataclass(frozen=True)
class Survey:
    """Everything that `check` found out.

    Attributes:
        nodes: in rank order.
        ctrl_port: the rendezvous port on the first node, 0 where it could not be had.
        fixed_ports: the manifest fixes ctrl_port and data_port.
    """

    nodes: tuple[NodeSurvey, ...]
    dials: tuple[Dial, ...] = ()
    ctrl_port: int = 0
    fixed_ports: bool = False
