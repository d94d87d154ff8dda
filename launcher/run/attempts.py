"""The attempts of a run: which nodes and workers each has, from what it starts, and that they may.

An attempt gets its nodes ready: it gives each of them its order and the checkpoint that its
workers start from, and has the nodes dial each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.collect.checkpoints import Stored
from launcher.core import replay
from launcher.core import state as core
from launcher.core.model import LaunchPlan, Resume
from launcher.core.orders import node_orders
from launcher.core.plan import plan_to_json
from launcher.run.fleet import Fleet
from launcher.run.following import Options
from launcher.run.preflight import Heard, Preflight
from launcher.run.push import CheckpointPush
from launcher.store.job_folder import JobFolder
from launcher.store.run_record import RunRecord
from launcher.wire import events


@dataclass(frozen=True)
class Undertaking:
    """What a run is to do, and how it would do it with other nodes.

    Attributes:
        plan: with the nodes that it begins with.
        folder: the job's folder.
        slots: workers on each node that may take part.
        spares: the names of nodes that may take the place of others.
        with_nodes: returns the plan with these nodes.
        hidden: names of environment variables whose values are nobody's business.
    """

    plan: LaunchPlan
    folder: JobFolder
    slots: Mapping[str, int]
    spares: tuple[str, ...]
    with_nodes: Callable[[Sequence[str]], LaunchPlan]
    hidden: tuple[str, ...] = ()


class Attempts:
    """Gets the nodes of one attempt after the other ready.

    Attributes:
        plan: that of the present attempt.
        resume_from: where its workers find the checkpoint to start from, on every node alike.
    """

    def __init__(
        self,
        work: Undertaking,
        record: RunRecord,
        fleet: Fleet,
        fail: Callable[[str, core.NodeFailed], None],
        options: Options,
    ) -> None:
        self.plan = work.plan
        self.resume_from = ""
        self._work = work
        self._record = record
        self._fleet = fleet
        self._options = options
        self._push = CheckpointPush(fleet.send, fail)
        self._preflight = Preflight(work.plan, record.run_id, fleet.send, wanted=False)

    def begin(self, state: core.RunState, newest: Stored | None) -> None:
        """Has the nodes of an attempt get ready.

        Args:
            state: how the run stands: the nodes and the number of the attempt.
            newest: the checkpoint that the run published last, where one is here.

        Raises:
            StoreError: this machine's disk does not take what has to be kept.
            NodeError: the address of a node cannot be resolved.
        """
        names = tuple(state.nodes)
        if names != tuple(node.name for node in self.plan.nodes):
            self.plan = self._work.with_nodes(names)
        if newest is not None:
            resume = Resume(self._record.run_id, newest.step, str(newest.directory))
            self.plan = dataclasses.replace(self.plan, resume=resume)
        self._write_down(state)
        self._prepare()

    def _write_down(self, state: core.RunState) -> None:
        restarts = [dataclasses.asdict(restart) for restart in state.restarts]
        if state.attempt > 0 or state.layout != self._first_layout:
            self._record.replace_plan(plan_to_json(self.plan, hidden=self._work.hidden))
        resume = self.plan.resume
        self._record.append(
            replay.ATTEMPT_BEGAN,
            attempt=state.attempt,
            layout=state.layout,
            restarts=restarts,
            resume={"run": resume.run, "step": resume.step} if resume else None,
        )
        self._record.update(attempt=state.attempt, restarts=restarts)

    @property
    def _first_layout(self) -> dict[int, str]:
        return {rank.rank: rank.node for rank in self._work.plan.ranks}

    def _prepare(self) -> None:
        run_id, folder = self._record.run_id, self._work.folder
        detached = self._options.is_detached
        orders = node_orders(
            self.plan, run_id=run_id, files=folder.files, tree=folder.tree, detached=detached
        )
        self._preflight = Preflight(self.plan, run_id, self._fleet.send, wanted=self._options.check)
        self.resume_from = ""
        self._fleet.release_all_but(orders)
        for node in self.plan.nodes:
            self._fleet.prepare(node, orders[node.name], folder, self._offer(node.name))

    def _offer(self, node: str) -> events.OfferCheckpoint | None:
        resume = self.plan.resume
        return self._push.offer(node, Path(resume.directory)) if resume is not None else None

    def sift(self, node: str, event: core.AnyEvent) -> Iterable[Heard]:
        """Takes an event in; returns what the run is to hear now (see `Preflight`)."""
        return self._preflight.sift(node, event)

    def on_wanted(self, node: str, event: events.CheckpointWanted) -> None:
        """A node lacks files of the checkpoint: they are sent."""
        self._push.on_wanted(node, event)

    def on_placed(self, event: events.CheckpointPlaced) -> None:
        """The checkpoint stands on a node."""
        self.resume_from = event.directory

    def close(self) -> None:
        """Sends nothing more. The connections must be closed before."""
        self._push.close()
