"""The OneFlow runtime on every node: built where it is missing, looked at, or removed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.core.facts import NodeFacts, NodeSurvey
from launcher.core.findings import Finding, find_differences
from launcher.core.model import NodeSpec
from launcher.errors import FlowlaunchError, NodeNotReady
from launcher.run.bringup import Transports
from launcher.run.check_facts import read_facts
from launcher.run.talk import Talk, on_all
from launcher.run.wheels import WheelStore
from launcher.wire import events

# pip is quiet for minutes while it unpacks; the agent's own lease must not end the build.
LEASE_S = 3600.0
THIS_MACHINE = "this machine"
STAGE_SEND = "send"
_PIECE_BYTES = 1 << 20

Progress = Callable[[str, events.RuntimeProgress], None]


@dataclass(frozen=True)
class Way:
    """How the runtime gets to the nodes.

    Attributes:
        interpreter: the nodes' own Python to use: as it is where it has OneFlow, else to build
            on; "" for one that each node finds.
        offline: this machine downloads, and sends each node what it lacks.
    """

    interpreter: str = ""
    offline: bool = False


@dataclass(frozen=True)
class Provisioned:
    """What came of one node; `error` is None where all is as wished.

    Attributes:
        python: the workers' interpreter there, "" where none is.
        built: the runtime was built just now; False where it was there.
        facts: what the node has now, None where that was not asked.
    """

    node: str
    python: str = ""
    built: bool = False
    error: FlowlaunchError | None = None
    facts: NodeFacts | None = None


def provision(
    nodes: Sequence[NodeSpec], transports: Transports, progress: Progress, way: Way
) -> list[Provisioned]:
    """Builds the runtime where it is missing.

    Args:
        nodes: where; one whose python is a path of its own needs none, and is only looked at.
        transports: the ways there.
        progress: is told how a node gets on, from a thread of its own for each.
        way: how the runtime gets there.

    Returns:
        What came of each node, in the given order.
    """

    def tell(done: int, total: int) -> None:
        progress(THIS_MACHINE, events.RuntimeProgress("download", done, total))

    store = WheelStore(tell)

    def work(node: NodeSpec) -> Provisioned:
        with _Work(node, transports, progress) as talk:
            return _provision_node(talk, way, store)

    return _on_all(nodes, work)


def remove(nodes: Sequence[NodeSpec], transports: Transports) -> list[Provisioned]:
    """Removes the runtimes that flowlaunch built; `built` says of a node that there was one."""

    def work(node: NodeSpec) -> Provisioned:
        with _Work(node, transports, lambda name, event: None) as talk:
            talk.send(events.RemoveRuntime())
            return Provisioned(node.name, built=talk.wait_for(events.RuntimeRemoved).was_there)

    return _on_all(nodes, work)


def differences(nodes: Sequence[NodeSpec], results: Sequence[Provisioned]) -> list[Finding]:
    """Returns what should be equal on the nodes and is not."""
    surveys = [
        NodeSurvey(node, facts=result.facts) for node, result in zip(nodes, results, strict=True)
    ]
    return list(find_differences(surveys))


def _on_all(
    nodes: Sequence[NodeSpec], work: Callable[[NodeSpec], Provisioned]
) -> list[Provisioned]:
    outcomes = on_all(nodes, work)
    return [
        Provisioned(node.name, error=outcome) if isinstance(outcome, FlowlaunchError) else outcome
        for node, outcome in zip(nodes, outcomes, strict=True)
    ]


class _Work(Talk):
    """A conversation about a node's runtime."""

    def __init__(self, node: NodeSpec, transports: Transports, progress: Progress) -> None:
        run_id = f"provision-{secrets.token_hex(4)}"
        super().__init__(node, transports, run_id, mode="start", lease_s=LEASE_S)
        self._progress = progress

    def end(self) -> None:
        """Has the agent clear up and leave."""
        self.send(events.EndRun(keep=False))
        self.wait_for(events.RunEnded)

    def on_other(self, event: events.Message) -> None:
        """Reports the progress that comes before an answer."""
        if isinstance(event, events.RuntimeProgress):
            self._progress(self.node.name, event)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Reports how far this node is."""
        self._progress(self.node.name, events.RuntimeProgress(stage, done, total))

    def ask_facts(self, python: str, *, interpreter: bool = False) -> NodeFacts:
        """Asks what the node is and has."""
        asked = {"python": python, "data": [], "full_hash": False, "interpreter": interpreter}
        self.send(events.ReportFacts(events.pack_json(asked)))
        answer = self.wait_for(events.FactsReported)
        return read_facts(events.unpack_json(answer.data))


def _provision_node(talk: _Work, way: Way, store: WheelStore) -> Provisioned:
    own = talk.node.python if talk.node.python != "auto" else way.interpreter
    if own:
        facts = talk.ask_facts(own)
        oneflow = facts.oneflow
        if oneflow is not None and not oneflow.error:
            return Provisioned(talk.node.name, oneflow.path, facts=facts)
        if talk.node.python != "auto":
            raise _useless(talk.node, oneflow.error if oneflow is not None else "")
    facts = talk.ask_facts("auto", interpreter=way.offline and not way.interpreter)
    built = facts.oneflow is None or bool(facts.oneflow.error)
    if built:
        if way.offline:
            _send_wheels(talk, store, _minor(talk, way, facts))
        talk.send(events.InstallRuntime(way.interpreter, way.offline))
        talk.wait_for(events.RuntimeReady)
        facts = talk.ask_facts("auto")
    python = facts.oneflow.path if facts.oneflow is not None else ""
    return Provisioned(talk.node.name, python, built, facts=facts)


def _useless(node: NodeSpec, why: str) -> NodeNotReady:
    return NodeNotReady(
        f"{node.python} is of no use to workers: {why}",
        node=node.name,
        hint='mend it, or write "python: auto" for flowlaunch\'s own runtime',
    )


def _minor(talk: _Work, way: Way, facts: NodeFacts) -> str:
    """Returns the minor version of the Python that the runtime will be built on, such as "3.10".

    Raises:
        NodeNotReady: the node has none that can carry it.
    """
    if way.interpreter:
        oneflow = talk.ask_facts(way.interpreter).oneflow
        version = oneflow.python if oneflow is not None else ""
        if version:
            return ".".join(version.split(".")[:2])
        why = oneflow.error if oneflow is not None else "it does not answer"
        raise NodeNotReady(why, node=talk.node.name, hint="name a CPython 3.10, 3.9 or 3.8")
    if not facts.interpreter:
        raise NodeNotReady(
            "OneFlow 0.9.0 needs CPython 3.10, 3.9 or 3.8, and none was found",
            node=talk.node.name,
            hint="install one there, or name it with --python; without an index, none is fetched",
        )
    return facts.interpreter


def _send_wheels(talk: _Work, store: WheelStore, minor: str) -> None:
    """Sends the wheels that a node lacks, each from where its own part of it ends."""
    wheels = {path.name: path for path in store.fetch(minor)}
    sizes = {name: path.stat().st_size for name, path in wheels.items()}
    talk.send(events.OfferWheels(events.pack_json(list(sizes.items()))))
    wanted = events.unpack_json(talk.wait_for(events.WheelsWanted).data)
    total = sum(sizes.values())
    done = total - sum(sizes[name] - here for name, here in wanted.items())
    for name, here in wanted.items():
        for piece in _pieces(name, wheels[name], here):
            talk.send(piece)
            done += len(piece.data)
            talk.tell(STAGE_SEND, done, total)


def _pieces(name: str, path: Path, offset: int) -> Iterator[events.PutWheel]:
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(_PIECE_BYTES):
            yield events.PutWheel(name, offset, data)
            offset += len(data)
