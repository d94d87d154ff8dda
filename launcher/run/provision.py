"""Installing the OneFlow runtime on every node that lacks it, all of them at once."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from launcher.core.model import NodeSpec
from launcher.errors import NodeError, NodeLost, NodeNotReady
from launcher.run.bringup import CONNECT_TIMEOUT_S, Transports
from launcher.run.link import NodeLink, open_link
from launcher.wire import events

# pip is quiet for minutes while it unpacks; the agent's own lease must not end the build.
LEASE_S = 3600.0

Progress = Callable[[str, events.RuntimeProgress], None]


@dataclass(frozen=True)
class Provisioned:
    """What came of one node; `error` is None where it has a whole runtime now.

    Attributes:
        built: the runtime was built just now; False where it was there.
    """

    node: str
    python: str = ""
    built: bool = False
    error: NodeError | None = None


def provision(
    nodes: Sequence[NodeSpec], transports: Transports, progress: Progress
) -> list[Provisioned]:
    """Builds the runtime where it is missing.

    Args:
        nodes: where; a node whose python is a path of its own needs none.
        transports: the ways there.
        progress: is told how a node gets on, from a thread of its own for each.

    Returns:
        What came of each node, in the given order.
    """
    done: dict[str, Provisioned] = {}

    def work(node: NodeSpec) -> None:
        try:
            done[node.name] = _provision_node(node, transports, progress)
        except NodeError as error:
            done[node.name] = Provisioned(node.name, error=error)

    wanted = [node for node in nodes if node.python == "auto"]
    threads = [threading.Thread(target=work, args=(node,), daemon=True) for node in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [done.get(node.name) or Provisioned(node.name, node.python) for node in nodes]


def _provision_node(node: NodeSpec, transports: Transports, progress: Progress) -> Provisioned:
    run_id = f"provision-{secrets.token_hex(4)}"
    link = open_link(
        transports[node.transport], node, run_id, mode="start", timeout_s=CONNECT_TIMEOUT_S
    )
    try:
        link.send(events.Hello(events.VERSION, LEASE_S))
        link.send(events.BuildRuntime())
        return _await_runtime(link, progress)
    finally:
        link.close()


def _await_runtime(link: NodeLink, progress: Progress) -> Provisioned:
    result: Provisioned | None = None
    for event in link.events():
        if isinstance(event, events.RuntimeProgress):
            progress(link.node.name, event)
        elif isinstance(event, events.RuntimeReady):
            result = Provisioned(link.node.name, event.python, event.built)
            link.send(events.EndRun())
        elif isinstance(event, events.NodeUnusable):
            error = NodeNotReady(event.message, node=link.node.name, hint=event.hint)
            result = Provisioned(link.node.name, error=error)
            link.send(events.EndRun())
    if result is None:
        raise NodeLost("the agent left before the runtime was built", node=link.node.name)
    return result
