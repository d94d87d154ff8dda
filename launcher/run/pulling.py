"""Bringing the checkpoints here that are still on a run's nodes, long after or beside its agents.

A side conversation with each node does it: it needs no agent to live there, and disturbs none.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass

from launcher.collect.checkpoints import CheckpointCollector, Outcome
from launcher.core import state as core
from launcher.core.model import NodeSpec
from launcher.core.paths import RunPaths
from launcher.run.bringup import Mode, NodeDriver, Transports
from launcher.run.inbox import Inbox
from launcher.run.link import NodeLink
from launcher.wire import events

_TICK_S = 0.2
_JOIN_S = 0.05
_LEASE_S = 60.0


@dataclass(frozen=True)
class Pulled:
    """What came of it.

    Attributes:
        found: how many checkpoints the nodes have.
        outcomes: those that came, and those that could not.
        unreachable: why a node could not be asked.
    """

    found: int
    outcomes: tuple[Outcome, ...]
    unreachable: dict[str, str]


class _Pull:
    """One pull, from the first connection to the last byte."""

    def __init__(
        self,
        paths: RunPaths,
        nodes: tuple[NodeSpec, ...],
        transports: Transports,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self._inbox = Inbox()
        self._on_outcome = on_outcome
        self._drivers = {
            node.name: NodeDriver(node, transports[node.transport], self._inbox, _ask)
            for node in nodes
        }
        self._unlisted = set(self._drivers)
        self._collector = CheckpointCollector(paths, self._send)
        self._found: set[int] = set()
        self._outcomes: list[Outcome] = []
        self._unreachable: dict[str, str] = {}

    def _send(self, node: str, command: events.Command) -> bool:
        return self._drivers[node].send(command)

    def carry_out(self, run_id: str) -> Pulled:
        for driver in self._drivers.values():
            driver.start(run_id, None, Mode.VISIT)
        try:
            while self._unlisted or self._collector.pending:
                self._take_next()
            for outcome in self._collector.incomplete():
                self._outcomes.append(outcome)
                self._on_outcome(outcome)
        finally:
            self._close()
        return Pulled(len(self._found), tuple(self._outcomes), self._unreachable)

    def _take_next(self) -> None:
        try:
            node, event = self._inbox.get(timeout=_TICK_S)
        except queue.Empty:
            return
        for outcome in self._take(node, event):
            self._outcomes.append(outcome)
            self._on_outcome(outcome)

    def _take(self, node: str, event: core.AnyEvent) -> list[Outcome]:
        if isinstance(event, events.CheckpointPublished):
            self._found.add(event.step)
            return self._collector.on_published(node, event)
        if isinstance(event, events.FileChunk):
            return self._collector.on_chunk(event)
        if isinstance(event, events.FileEnded):
            return self._collector.on_ended(event)
        if isinstance(event, events.CheckpointsListed):
            self._unlisted.discard(node)
        if isinstance(event, core.NodeFailed | core.LinkLost | core.AgentGone):
            if node in self._unlisted:
                self._unlisted.discard(node)
                self._unreachable[node] = event.message
            return self._collector.on_node_lost(node)
        return []

    def _close(self) -> None:
        for driver in self._drivers.values():
            driver.close()
        for driver in self._drivers.values():
            while driver.is_alive:
                while not self._inbox.empty():
                    self._inbox.get_nowait()
                driver.join(_JOIN_S)
        self._collector.close()


def _ask(link: NodeLink) -> None:
    link.send(events.Hello(events.VERSION, _LEASE_S))
    link.send(events.ListCheckpoints())


def pull(
    paths: RunPaths,
    nodes: tuple[NodeSpec, ...],
    transports: Transports,
    on_outcome: Callable[[Outcome], None],
) -> Pulled:
    """Brings every checkpoint of a run here that is on its nodes and not here yet.

    Args:
        paths: the run's files here.
        nodes: the run's nodes.
        transports: the ways there.
        on_outcome: is told of each checkpoint that came, or could not.
    """
    return _Pull(paths, nodes, transports, on_outcome).carry_out(paths.run_id)
