"""What a launcher orders of one node for one run, as values that travel as JSON."""

from typing import Any, Dict, List, NamedTuple

from launcher.wire import codec, events


class TreeFile(NamedTuple):
    """One file of the job's folder: its path there, its content's hash and size, its mode."""

    path: str
    sha256: str
    size: int
    mode: int


class WorkerOrder(NamedTuple):
    """One worker: what follows the interpreter on its command line, and what it finds set."""

    rank: int
    local_rank: int
    argv: List[str]
    env: Dict[str, str]


class NodeOrder(NamedTuple):
    """Everything a node needs to know before the workers start.

    Attributes:
        run_id: the run, also the name of its directory on the node.
        node: the node's name in the plan.
        python: the workers' interpreter, or "auto" for flowlaunch's own runtime.
        build_runtime: whether a missing runtime is built at once (else it is an error).
        workdir: the workers' working directory relative to the shipped folder.
        tree: the hash over `files`, which the node proves before any worker starts.
        hosts_rendezvous: whether rank 0 runs here.
        ctrl_port: a fixed rendezvous port to find free here, or 0 to choose one at each attempt.
        detached: whether the run outlives its launcher.
        collect: patterns of paths in the working directory that the launcher wants too.
        max_log_bytes: what the node may keep of each stream beyond what is not brought away yet;
            0 is all of it.
    """

    run_id: str
    node: str
    python: str
    build_runtime: bool
    workdir: str
    tree: str
    files: List[TreeFile]
    workers: List[WorkerOrder]
    hosts_rendezvous: bool
    ctrl_port: int
    detached: bool
    collect: List[str]
    max_log_bytes: int


def pack(order: NodeOrder) -> bytes:
    """Returns an order as payload bytes."""
    return events.pack_json(order._asdict())


def unpack(data: bytes) -> NodeOrder:
    """Returns the order in payload bytes.

    Raises:
        codec.WireError: the bytes are no order.
    """
    fields: Dict[str, Any] = events.unpack_json(data)
    try:
        fields["files"] = [TreeFile(*item) for item in fields["files"]]
        fields["workers"] = [WorkerOrder(*item) for item in fields["workers"]]
        return NodeOrder(**fields)
    except (TypeError, KeyError) as error:
        raise codec.WireError("no order: %s" % error) from None
