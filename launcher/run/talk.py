"""Conversations with nodes that go question by question, on all nodes at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from launcher.core.model import NodeSpec
from launcher.errors import FlowlaunchError, NodeLost, NodeNotReady
from launcher.run.bringup import CONNECT_TIMEOUT_S, Transports
from launcher.run.link import NodeLink, open_link
from launcher.wire import events

_Event = TypeVar("_Event")
_Outcome = TypeVar("_Outcome")
_Self = TypeVar("_Self", bound="Talk")


class Talk:
    """One conversation with the agent of a node."""

    def __init__(
        self, node: NodeSpec, transports: Transports, run_id: str, *, mode: str, lease_s: float
    ) -> None:
        """Prepares it.

        Args:
            node: the node.
            transports: the ways to nodes.
            run_id: the run.
            mode: how the agent is come to, see `launcher.agent.__main__`.
            lease_s: how long an agent that is started for this lives on without it.
        """
        self.node = node
        self._transport = transports[node.transport]
        self._run_id = run_id
        self._mode = mode
        self._lease_s = lease_s

    def __enter__(self: _Self) -> _Self:
        self._link: NodeLink = open_link(
            self._transport, self.node, self._run_id, mode=self._mode, timeout_s=CONNECT_TIMEOUT_S
        )
        self._events: Iterator[events.Message] = self._link.events()
        self.send(events.Hello(events.VERSION, self._lease_s))
        return self

    def __exit__(self, *problem: object) -> None:
        try:
            if problem[0] is None or issubclass(problem[0], NodeNotReady):  # type: ignore[arg-type]
                self.end()
        finally:
            self._link.close()

    def end(self) -> None:
        """Says goodbye where the conversation went well; a side conversation needs no word."""

    def on_other(self, event: events.Message) -> None:
        """Takes what comes before an answer."""

    def send(self, command: events.Command) -> None:
        """Says something.

        Raises:
            NodeLost: the connection is gone.
        """
        self._link.send(command)

    def wait_for(self, kind: type[_Event], limit_s: float | None = None) -> _Event:
        """Returns the next event of a kind.

        Args:
            kind: its class.
            limit_s: how long it may take; None is for ever.

        Raises:
            NodeNotReady: the node says that it cannot do what it was asked.
            NodeLost: the conversation ended, or the time is over.
        """
        if limit_s is None:
            return self._next(kind)
        timer = threading.Timer(limit_s, self._link.close)
        timer.start()
        try:
            return self._next(kind)
        except NodeLost:
            if timer.finished.is_set():
                raise NodeLost(
                    f"its agent did not answer within {limit_s:g} s", node=self.node.name
                ) from None
            raise
        finally:
            timer.cancel()
            timer.join()

    def _next(self, kind: type[_Event]) -> _Event:
        for event in self._events:
            if isinstance(event, kind):
                return event
            if isinstance(event, events.NodeUnusable):
                raise NodeNotReady(event.message, node=self.node.name, hint=event.hint)
            self.on_other(event)
        raise NodeLost("the agent left before it was done", node=self.node.name)


def on_all(
    nodes: Sequence[NodeSpec], work: Callable[[NodeSpec], _Outcome]
) -> list[_Outcome | FlowlaunchError]:
    """Does the same on every node at once.

    Returns:
        What came of each node, in the given order; its error where it failed.
    """
    done: dict[str, _Outcome | FlowlaunchError] = {}

    def run(node: NodeSpec) -> None:
        try:
            done[node.name] = work(node)
        except FlowlaunchError as error:
            done[node.name] = error

    threads = [threading.Thread(target=run, args=(node,), daemon=True) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [done[node.name] for node in nodes]
