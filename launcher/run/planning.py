"""From a command line and a manifest to a plan: what needs the network or a disk is asked here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.core.model import ClusterSpec, LaunchPlan, NodeSpec, Resume, TransportKind
from launcher.core.plan import make_plan
from launcher.errors import NodeNotReady, UsageError
from launcher.run.attempts import Undertaking
from launcher.run.bringup import CONNECT_TIMEOUT_S, Transports
from launcher.store.job_folder import JobFolder, job_spec, read_folder
from launcher.transport.addresses import resolve_addr, source_address

LOOPBACK = "127.0.0.1"
_COUNT_GPUS = ("/bin/sh", "-c", "ls -d /dev/nvidia[0-9]* 2>/dev/null | wc -l")


@dataclass(frozen=True)
class Wish:
    """What the command line asks for.

    Attributes:
        target: a script's path or a module's name.
        nproc_per_node: workers on each node; None leaves it to the manifest.
        env: what `--env` sets.
        dry_run: this machine alone, one worker, a few steps.
        legacy_placement: "" for today's API.
        resume: the checkpoint to start from.
        collect: what `--collect` names.
    """

    target: str
    is_module: bool
    args: tuple[str, ...]
    nproc_per_node: int | None
    env: Mapping[str, str]
    dry_run: bool = False
    legacy_placement: str = ""
    resume: Resume | None = None
    collect: tuple[str, ...] = ()


def this_machine(slots: int = 1) -> ClusterSpec:
    """Returns the cluster of a run without a manifest."""
    node = NodeSpec("localhost", LOOPBACK, TransportKind.LOCAL, slots=slots)
    return ClusterSpec("this machine", (node,))


def plan_run(wish: Wish, cluster: ClusterSpec, transports: Callable[[], Transports]) -> Undertaking:
    """Returns what a run is to do: its plan, and the folder that travels for it.

    Args:
        wish: what the command line asks for.
        cluster: the nodes that take part.
        transports: gives the ways to the nodes; called only where a node must be asked something.

    Raises:
        UsageError: there is no such job.
        NodeError: a node's address cannot be resolved, or it cannot say how many GPUs it has.
    """
    job, top = job_spec(wish.target, wish.is_module, wish.args)
    folder = read_folder(top, "" if job.is_module else job.target)
    job = dataclasses.replace(job, args=tuple(_absolute(arg, folder) for arg in wish.args))
    cluster = dataclasses.replace(cluster, nodes=resolve_nodes(cluster.nodes))
    slots = {node.name: _slots(node, wish, transports) for node in cluster.nodes}
    usual = next(iter(slots.values()))
    for spare in cluster.spares:
        # It is asked nothing before it is needed: it takes the place of a node like the others.
        slots[spare.name] = wish.nproc_per_node or spare.slots or usual

    def with_nodes(names: Sequence[str]) -> LaunchPlan:
        known = {node.name: node for node in (*cluster.nodes, *cluster.spares)}
        nodes = resolve_nodes([known[name] for name in names])
        return make_plan(
            dataclasses.replace(cluster, nodes=nodes),
            job,
            slots=slots,
            env=wish.env,
            dry_run=wish.dry_run,
            legacy_placement=wish.legacy_placement,
            resume=wish.resume,
            collect=wish.collect,
        )

    return Undertaking(
        plan=with_nodes([node.name for node in cluster.nodes]),
        folder=folder,
        slots=slots,
        spares=tuple(node.name for node in cluster.spares),
        with_nodes=with_nodes,
        hidden=tuple(wish.env),
    )


def _absolute(arg: str, folder: JobFolder) -> str:
    """Returns an argument as the workers are to see it.

    They run in a copy of the job's folder. What exists here and does not travel with it, such as
    data beside the program, they find only by its whole path: `--data=../mnist.npz` likewise.
    """
    option, equals, value = arg.rpartition("=") if arg.startswith("-") else ("", "", arg)
    path = Path(value)
    if not value or value.startswith("-") or path.is_absolute():
        return arg
    try:
        if not path.exists() or folder.holds(path):
            return arg
    except (OSError, ValueError):
        return arg
    return f"{option}{equals}{path.resolve()}"


def resolve_nodes(nodes: Sequence[NodeSpec]) -> tuple[NodeSpec, ...]:
    """Returns the nodes with numeric addresses, as OneFlow wants them.

    Raises:
        NodeError: a name stands for no IPv4 address.
    """
    resolved = [
        dataclasses.replace(node, addr=resolve_addr(node)) if node.addr else node for node in nodes
    ]
    far = next((node for node in resolved if node.transport is TransportKind.SSH), None)
    here = source_address(far.addr) if far is not None else LOOPBACK
    return tuple(
        dataclasses.replace(node, addr=node.addr or here)
        if node.transport is TransportKind.LOCAL
        else node
        for node in resolved
    )


def _slots(node: NodeSpec, wish: Wish, transports: Callable[[], Transports]) -> int:
    if wish.dry_run:
        return 1
    if wish.nproc_per_node is not None:
        return wish.nproc_per_node
    return node.slots if node.slots is not None else _count_gpus(node, transports())


def _count_gpus(node: NodeSpec, transports: Transports) -> int:
    connection = transports[node.transport].open(node, _COUNT_GPUS, timeout_s=CONNECT_TIMEOUT_S)
    try:
        said = b""
        while data := connection.receive(4096):
            said += data
    finally:
        connection.close()
    count = said.split()[-1:] or [b"0"]
    if not count[0].isdigit() or int(count[0]) == 0:
        raise NodeNotReady(
            'it has no NVIDIA GPU, and its slots are "gpus"',
            node=node.name,
            hint="give the node a number of slots, or look at its driver: /dev/nvidia0 is missing",
        )
    return int(count[0])


def parse_collect(patterns: Sequence[str]) -> tuple[str, ...]:
    """Returns what `--collect` options name.

    Raises:
        UsageError: one leads out of the working directory.
    """
    for pattern in patterns:
        if not pattern or pattern.startswith(("/", "~")) or ".." in pattern.split("/"):
            raise UsageError(
                f"--collect {pattern}: expected a path inside the worker's working directory",
                hint="e.g. --collect checkpoints99, --collect '*.bin'",
            )
    return tuple(patterns)


def parse_env(pairs: Sequence[str]) -> dict[str, str]:
    """Returns what `--env K=V` options set.

    Raises:
        UsageError: one is not of that form.

    >>> parse_env(["A=1", "B=x=y"])
    {'A': '1', 'B': 'x=y'}
    """
    env = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--env {key}: expected NAME=VALUE", hint="e.g. --env SEED=3")
        env[key] = value
    return env
