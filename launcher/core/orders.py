"""What the plan means for each node, as the wire says it."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.core.model import ON_NODE, LaunchPlan, RankSpec, TransportKind
from launcher.wire.order import NodeOrder, TreeFile, WorkerOrder


def node_orders(
    plan: LaunchPlan, *, run_id: str, files: Sequence[TreeFile], tree: str, detached: bool = False
) -> dict[str, NodeOrder]:
    """Returns the order for each node, by its name.

    Args:
        plan: the plan of the run.
        run_id: the run.
        files: the job's folder.
        tree: the hash over it.
        detached: whether the workers go on without a launcher.
    """
    first = plan.ranks[0].node
    return {
        node.name: NodeOrder(
            run_id=run_id,
            node=node.name,
            python=node.python,
            # This machine is the person's own: what it lacks is built at once. Others are
            # changed only by a command that says so.
            build_runtime=node.transport is TransportKind.LOCAL,
            workdir=plan.job.workdir,
            tree=tree,
            files=list(files),
            workers=[_worker_order(rank, run_id) for rank in plan.ranks_of(node.name)],
            hosts_rendezvous=node.name == first,
            ctrl_port=plan.ctrl_port or 0,
            detached=detached,
            collect=list(plan.collect),
            max_log_bytes=plan.logs.max_bytes or 0,
        )
        for node in plan.nodes
    }


def _worker_order(rank: RankSpec, run_id: str) -> WorkerOrder:
    env = {key: value for key, value in rank.env.items() if value != ON_NODE}
    env["FLOWLAUNCH_RUN_ID"] = run_id
    return WorkerOrder(rank.rank, rank.local_rank, list(rank.argv), env)
