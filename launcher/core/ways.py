"""The ways between nodes, as they are tried: what each listens on, and who dials whom. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from launcher.core.blocked_ways import Way
from launcher.core.facts import Dial
from launcher.core.plan import PORTS_PER_WORKER
from launcher.wire import events

# Within a data centre an answer takes a millisecond; a dropped packet is sent again after 1 s.
DIAL_TIMEOUT_S = 2.5
# Up to so many nodes, each dials every other one; beyond that the dials would be millions.
MESH_NODES = 32


@dataclass(frozen=True)
class Ports:
    """What a node listens on.

    Attributes:
        fixed: these ports.
        free: so many more, which the node chooses.
    """

    fixed: tuple[int, ...]
    free: int


@dataclass(frozen=True)
class Door:
    """One port of one node, and what its agent says to whoever comes."""

    node: str
    addr: str
    port: int
    greeting: str


def greeting_of(run_id: str, node: str) -> str:
    """Returns words that no other run's agent says, and no other node's."""
    return f"flowlaunch {run_id} {node}\n"


def ports_of(slots: int, *, is_first: bool, ctrl_port: int | None, data_port: int | None) -> Ports:
    """Returns what a node listens on: the ports of a run, or as many chosen ones as prove a way.

    >>> ports_of(2, is_first=True, ctrl_port=12138, data_port=23400)
    Ports(fixed=(12138, 23400, 23401, 23402, 23403), free=0)
    >>> ports_of(2, is_first=False, ctrl_port=12138, data_port=None)
    Ports(fixed=(), free=1)
    """
    fixed: list[int] = []
    if is_first and ctrl_port is not None:
        fixed.append(ctrl_port)
    if data_port is not None:
        fixed += range(data_port, data_port + PORTS_PER_WORKER * slots)
    return Ports(tuple(fixed), (data_port is None) + (is_first and ctrl_port is None))


def bind_order(ports: Ports, greeting: str) -> events.BindPorts:
    """Returns the order to listen; of no ports, to let go of all."""
    wanted = {"ports": ports.fixed, "free": ports.free, "greeting": greeting}
    return events.BindPorts(events.pack_json(wanted))


def dial_order(doors: Sequence[Door]) -> events.DialPeers:
    """Returns the order to dial doors; `read_dials` takes the answer."""
    rows = [[door.addr, door.port, door.greeting] for door in doors]
    return events.DialPeers(events.pack_json(rows), DIAL_TIMEOUT_S)


def read_dials(source: str, doors: Sequence[Door], answer: events.PeersDialled) -> list[Dial]:
    """Returns how the dials went that a node was told to make."""
    words = events.unpack_json(answer.data)
    return [
        Dial(source, door.node, door.port, word) for door, word in zip(doors, words, strict=False)
    ]


def partners(count: int) -> Iterator[tuple[int, ...]]:
    """Yields for each of so many nodes, by number, those that it dials; itself is among them.

    A few nodes dial all others. Of many, each dials the ones that are 1, 2, 4, 8, … places
    further on: so every node calls and is called by ten of a thousand, near and far ones, and
    a node or a switch between two halves that lets nothing through is found all the same.

    >>> list(partners(3))
    [(0, 1, 2), (0, 1, 2), (0, 1, 2)]
    >>> list(partners(100))[98]
    (98, 99, 0, 2, 6, 14, 30, 62)
    """
    if count <= MESH_NODES:
        yield from [tuple(range(count))] * count
        return
    steps = [0, *(1 << power for power in range((count - 1).bit_length()))]
    for number in range(count):
        yield tuple((number + step) % count for step in steps)


def to_leave_out(ways: Sequence[Way]) -> list[str]:
    """Returns few nodes without which no way would be blocked: those in most ways first.

    Of two nodes alone, it is the one that is not reached.

    >>> one = Way("n2", "n3", "timeout", (23401,), False)
    >>> to_leave_out([one])
    ['n3']
    >>> to_leave_out([one, Way("n2", "n1", "timeout", (23401,), False)])
    ['n2']
    """
    left, chosen = list(ways), []
    while left:
        counts = Counter(way.target for way in left)
        counts.update(way.source for way in left if way.source != way.target)
        worst = max(counts, key=lambda name: counts[name])
        chosen.append(worst)
        left = [way for way in left if worst not in (way.source, way.target)]
    return chosen
