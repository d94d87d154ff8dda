"""The plan: who runs what, where, with which environment. Decided before anything is done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from launcher.core.model import (
    ON_NODE,
    ClusterSpec,
    JobSpec,
    LaunchPlan,
    LogPolicy,
    NodeSpec,
    RankSpec,
    Resume,
    SshSpec,
    TransportKind,
)
from launcher.core.retention import policy_from_json, policy_to_json
from launcher.errors import UsageError

# Two ports a worker behind a fixed data_port: one for data, one for control.
PORTS_PER_WORKER = 2
HIDDEN = "***"


def make_plan(
    cluster: ClusterSpec,
    job: JobSpec,
    *,
    slots: Mapping[str, int],
    env: Mapping[str, str],
    dry_run: bool = False,
    legacy_placement: str = "",
    resume: Resume | None = None,
    collect: Sequence[str] = (),
) -> LaunchPlan:
    """Returns the plan of one run.

    Args:
        cluster: the nodes that take part, with numeric addresses, in rank order.
        job: what runs.
        slots: workers of each node, by its name; at least one each.
        env: what the command line sets for every worker; it wins over the manifest.
        dry_run: the job is to take a few steps on a small sample.
        legacy_placement: "" for today's API, else how the old API's placements are taken.
        resume: the checkpoint that the workers start from, None for none.
        collect: what the command line wants of the working directory, besides the manifest.

    Raises:
        UsageError: there is no node to run on.
    """
    if not cluster.nodes:
        raise UsageError("no node is left to run on", hint="look at --nodes and the manifest")
    world_size = sum(slots[node.name] for node in cluster.nodes)
    uneven = len({slots[node.name] for node in cluster.nodes}) > 1
    shared = _shared_env(cluster, world_size, uneven, dry_run, legacy_placement)
    if resume is not None:
        shared["FLOWLAUNCH_RESUME_FROM"] = ON_NODE
    ranks: list[RankSpec] = []
    for node_rank, node in enumerate(cluster.nodes):
        for local_rank in range(slots[node.name]):
            own = _own_env(cluster, node, node_rank, local_rank, len(ranks), uneven)
            ranks.append(
                RankSpec(
                    rank=len(ranks),
                    local_rank=local_rank,
                    node=node.name,
                    node_rank=node_rank,
                    argv=_argv(job),
                    env=MappingProxyType({**cluster.env, **node.env, **env, **shared, **own}),
                )
            )
    return LaunchPlan(
        cluster=cluster.name,
        job=job,
        nodes=cluster.nodes,
        ranks=tuple(ranks),
        ctrl_port=cluster.ctrl_port,
        data_port=cluster.data_port,
        uneven=uneven,
        checkpoints=cluster.checkpoints,
        logs=cluster.logs,
        resume=resume,
        collect=tuple(dict.fromkeys((*cluster.collect, *collect))),
    )


def _argv(job: JobSpec) -> tuple[str, ...]:
    return ("module" if job.is_module else "script", job.target, *job.args)


def _shared_env(
    cluster: ClusterSpec, world_size: int, uneven: bool, dry_run: bool, legacy_placement: str
) -> dict[str, str]:
    env = {
        "MASTER_ADDR": cluster.nodes[0].addr,
        "MASTER_PORT": str(cluster.ctrl_port or ON_NODE),
        "WORLD_SIZE": str(world_size),
        "FLOWLAUNCH_RUN_ID": ON_NODE,
        "FLOWLAUNCH_NNODES": str(len(cluster.nodes)),
        "FLOWLAUNCH_MACHINES": json.dumps([{"addr": node.addr} for node in cluster.nodes]),
    }
    if uneven:
        env["FLOWLAUNCH_NODE_SIZE"] = str(world_size)
    if dry_run:
        env["FLOWLAUNCH_DRY_RUN"] = "1"
    if legacy_placement:
        env["FLOWLAUNCH_LEGACY_PLACEMENT"] = legacy_placement
    return env


def _own_env(
    cluster: ClusterSpec, node: NodeSpec, node_rank: int, local_rank: int, rank: int, uneven: bool
) -> dict[str, str]:
    env = {
        "RANK": str(rank),
        # OneFlow counts machines as world size over workers a machine. Where that does not
        # divide, each worker is told to be a machine of its own, and so the first one there.
        "LOCAL_RANK": "0" if uneven else str(local_rank),
        "FLOWLAUNCH_LOCAL_RANK": str(local_rank),
        "FLOWLAUNCH_NODE": node.name,
        "FLOWLAUNCH_NODE_RANK": str(node_rank),
    }
    if len(cluster.nodes) > 1:
        env["FLOWLAUNCH_ADDR"] = node.addr
    if cluster.data_port is not None:
        base = cluster.data_port + PORTS_PER_WORKER * local_rank
        env["FLOWLAUNCH_DATA_PORT"] = str(base)
        env["FLOWLAUNCH_CONTROL_PORT"] = str(base + 1)
    return env


def plan_to_json(plan: LaunchPlan, *, hidden: Sequence[str] = ()) -> dict[str, object]:
    """Returns a plan as JSON values.

    Args:
        plan: the plan.
        hidden: names of environment variables whose values are nobody's business.
    """
    ranks = []
    for rank in plan.ranks:
        env = {key: HIDDEN if key in hidden else value for key, value in rank.env.items()}
        fields = {
            "rank": rank.rank,
            "local_rank": rank.local_rank,
            "node": rank.node,
            "node_rank": rank.node_rank,
            "argv": list(rank.argv),
            "env": env,
        }
        ranks.append(fields)
    return {
        "cluster": plan.cluster,
        "job": dataclasses.asdict(plan.job),
        "machines": [{"addr": node.addr} for node in plan.nodes],
        "ctrl_port": plan.ctrl_port if plan.ctrl_port is not None else "auto",
        "data_port": plan.data_port if plan.data_port is not None else "auto",
        "world_size": plan.world_size,
        "collect": list(plan.collect),
        "checkpoints": policy_to_json(plan.checkpoints),
        "resume": dataclasses.asdict(plan.resume) if plan.resume else None,
        "logs": dataclasses.asdict(plan.logs),
        "nodes": [_node_to_json(node) for node in plan.nodes],
        "ranks": ranks,
    }


def plan_from_json(fields: Mapping[str, Any]) -> LaunchPlan:
    """Returns the plan that `plan_to_json` gave, for a run that goes on already.

    What was hidden in it stays so: with such a plan, no worker can be started.

    Raises:
        KeyError, TypeError, ValueError: it is not what `plan_to_json` gives.
    """
    ranks = [
        RankSpec(**{**rank, "argv": tuple(rank["argv"]), "env": MappingProxyType(rank["env"])})
        for rank in fields["ranks"]
    ]
    counts = {rank.node: 0 for rank in ranks}
    for rank in ranks:
        counts[rank.node] += 1
    ctrl_port, data_port, resume = fields["ctrl_port"], fields["data_port"], fields["resume"]
    return LaunchPlan(
        cluster=fields["cluster"],
        job=JobSpec(**{**fields["job"], "args": tuple(fields["job"]["args"])}),
        nodes=nodes_from_json(fields),
        ranks=tuple(ranks),
        ctrl_port=None if ctrl_port == "auto" else ctrl_port,
        data_port=None if data_port == "auto" else data_port,
        uneven=len(set(counts.values())) > 1,
        checkpoints=policy_from_json(fields["checkpoints"]),
        collect=tuple(fields["collect"]),
        resume=Resume(**resume) if resume else None,
        logs=LogPolicy(**fields["logs"]),
    )


def _node_to_json(node: NodeSpec) -> dict[str, object]:
    fields: dict[str, object] = {
        "name": node.name,
        "addr": node.addr,
        "transport": node.transport.value,
        "python": node.python,
    }
    if node.workdir is not None:
        fields["workdir"] = node.workdir
    if node.ssh is not None:
        login = dataclasses.asdict(node.ssh)
        fields["ssh"] = {key: value for key, value in login.items() if value not in (None, False)}
    return fields


def nodes_from_json(plan: Mapping[str, Any]) -> tuple[NodeSpec, ...]:
    """Returns the nodes of a plan that `plan_to_json` gave.

    Raises:
        ValueError: it is no such plan.

    >>> node = {"name": "n1", "addr": "10.0.0.1", "transport": "local"}
    >>> nodes_from_json({"nodes": [node]})[0].python
    'auto'
    """
    try:
        return tuple(_node_from_json(fields) for fields in plan["nodes"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it names no nodes: {error!r}") from None


def _node_from_json(fields: Mapping[str, Any]) -> NodeSpec:
    login = fields.get("ssh")
    return NodeSpec(
        name=str(fields["name"]),
        addr=str(fields["addr"]),
        transport=TransportKind(fields["transport"]),
        python=str(fields.get("python", "auto")),
        workdir=fields.get("workdir"),
        ssh=None if login is None else SshSpec(**login),
    )
