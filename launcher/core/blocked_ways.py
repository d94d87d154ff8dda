"""From failed dials to who cannot reach whom, and why that may be. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from launcher.core.facts import (
    NO_ANSWER,
    REFUSED,
    STRANGER,
    UNREACHABLE,
    Address,
    Dial,
    NodeSurvey,
    Survey,
)
from launcher.core.findings import Finding, Severity
from launcher.core.nodeset import fold

OK_CELL = "ok"
NOT_TRIED = ""


@dataclass(frozen=True)
class Way:
    """One direction between two nodes that does not work.

    Attributes:
        ports: those that failed; `all_ports`: no port of the target answered the source.
    """

    source: str
    target: str
    word: str
    ports: tuple[int, ...]
    all_ports: bool


def blocked_ways(dials: Sequence[Dial]) -> list[Way]:
    """Returns the directions with a port that does not answer, one way for each kind of failure."""
    pairs: dict[tuple[str, str], list[Dial]] = {}
    for dial in dials:
        pairs.setdefault((dial.source, dial.target), []).append(dial)
    return [way for pair, tried in pairs.items() for way in _ways(pair, tried)]


def _ways(pair: tuple[str, str], tried: Sequence[Dial]) -> Iterator[Way]:
    failed: dict[str, list[int]] = {}
    for dial in tried:
        if not dial.answered:
            failed.setdefault(dial.word, []).append(dial.port)
    whole = not any(dial.answered for dial in tried)
    for word, ports in failed.items():
        yield Way(*pair, word, tuple(sorted(ports)), whole)


def find_blocked(survey: Survey) -> Iterator[Finding]:
    """Yields a finding for each set of nodes that fail alike to reach the same one."""
    nodes = {node.name: node for node in survey.nodes}
    ways = blocked_ways(survey.dials)
    blocked = {(way.source, way.target) for way in ways}
    alike: dict[tuple[str, str, tuple[int, ...], bool], list[str]] = {}
    for way in ways:
        key = (way.target, way.word, way.ports, way.all_ports)
        alike.setdefault(key, []).append(way.source)
    for (target, word, ports, all_ports), sources in alike.items():
        one = _Blocked(
            tuple(nodes[name] for name in sources), nodes[target], word, ports, all_ports
        )
        answers = not any((target, source) in blocked for source in sources)
        yield one.finding(is_one_way=answers, fixed=survey.fixed_ports)


@dataclass(frozen=True)
class _Blocked:
    """Some nodes that cannot reach one, all in the same way."""

    sources: tuple[NodeSurvey, ...]
    target: NodeSurvey
    word: str
    ports: tuple[int, ...]
    all_ports: bool

    @property
    def is_itself(self) -> bool:
        return [node.name for node in self.sources] == [self.target.name]

    def finding(self, *, is_one_way: bool, fixed: bool) -> Finding:
        names = tuple(dict.fromkeys(node.name for node in (*self.sources, self.target)))
        back = ""
        if is_one_way and not self.is_itself:
            back = "; the other way answers"
        return Finding(
            Severity.ERROR, "path", names, self._message(), self._fix(fixed), self._cause() + back
        )

    def _message(self) -> str:
        who = fold(node.name for node in self.sources)
        what = "nothing answers" if self.word == NO_ANSWER else _HAPPENED.get(self.word, self.word)
        return f"{who} -> {self.target.name}: {what} at {self.target.node.addr} {self._where}"

    @property
    def _where(self) -> str:
        if len(self.ports) == 1:
            return f"port {self.ports[0]}" + ("" if self.all_ports else " alone")
        numbers = fold_ports(self.ports)
        return f"ports {numbers}" + (" (all of them)" if self.all_ports else " alone")

    def _cause(self) -> str:
        addr = self.target.node.addr
        if self._is_loopback:
            return f"{addr} leads every machine to itself"
        if not self._has(addr):
            there = ", ".join(address.address for address in self._addresses()) or "none"
            return f"{addr} is none of {self.target.name}'s own addresses ({there})"
        if self.word == NO_ANSWER:
            return "a firewall on the way, or on either machine, drops what is sent there"
        if self.word == REFUSED:
            return "a firewall on the way, or on either machine, rejects it; the port was open"
        if self.word == UNREACHABLE and self._is_near:
            return "a firewall on either machine says that there is no way (firewalld does so)"
        if self.word == UNREACHABLE:
            return f"there is no route to {addr}"
        if self.word == STRANGER:
            return "something in between, or another machine with this address, took the call"
        if self.word in ("EPERM", "EACCES"):
            return "a firewall of the dialling machine itself forbids it"
        return f"the system says {self.word}"

    def _has(self, addr: str) -> bool:
        own = {address.address for address in self._addresses()}
        return not own or addr in own or self._is_loopback

    @property
    def _is_loopback(self) -> bool:
        return ipaddress.IPv4Address(self.target.node.addr).is_loopback

    @property
    def _is_near(self) -> bool:
        """Whether every source is on the network of the address that it dialled."""
        addr = self.target.node.addr
        networks = [_network(own) for own in self._addresses() if own.address == addr]
        others = [node for node in self.sources if node is not self.target]
        return any(all(_is_on(node, network) for node in others) for network in networks)

    def _addresses(self) -> Sequence[Address]:
        return self.target.facts.addresses if self.target.facts is not None else ()

    def _fix(self, fixed: bool) -> str:
        addr = self.target.node.addr
        if (
            self._is_loopback
            or not self._has(addr)
            or self.word == STRANGER
            or (self.word == UNREACHABLE and not self._is_near)
        ):
            return (
                f"set {self.target.name}'s addr in the manifest to its address on a network that "
                f"all nodes share{self._shared()}"
            )
        rule = f"ip saddr {{ {', '.join(node.node.addr for node in self.sources)} }} tcp dport"
        if fixed:
            return (
                f"let TCP {fold_ports(self.ports)} in on {self.target.name}, e.g. "
                f"nft insert rule inet filter input {rule} {{ {fold_ports(self.ports)} }} accept"
            )
        return (
            "let the nodes reach each other's TCP ports; or write a fixed ctrl_port and data_port "
            "into the manifest and open ctrl_port on the first node, and data_port and the ones "
            "after it, two a worker, on all"
        )

    def _shared(self) -> str:
        """Returns the target's addresses on networks that every source has one on, too."""
        others = [node for node in self.sources if node is not self.target]
        found = [
            address
            for address in self._addresses()
            if address.address != self.target.node.addr
            and all(_is_on(node, _network(address)) for node in others)
        ]
        # The network that the others' addr is on comes before any other that they share.
        found.sort(key=lambda address: -sum(_dials_on(node, address) for node in others))
        return f", such as {found[0].address}" if found else ""


def _network(address: Address) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(f"{address.address}/{address.prefix}", strict=False)


def _is_on(node: NodeSurvey, network: ipaddress.IPv4Network) -> bool:
    own = node.facts.addresses if node.facts is not None else ()
    return any(ipaddress.IPv4Address(other.address) in network for other in own)


def _dials_on(node: NodeSurvey, address: Address) -> bool:
    return ipaddress.IPv4Address(node.node.addr) in _network(address)


_HAPPENED = {
    REFUSED: "the call is refused",
    UNREACHABLE: "there is no way",
    STRANGER: "something else than its agent answers",
}


def fold_ports(ports: Sequence[int]) -> str:
    """Returns port numbers in short.

    >>> fold_ports((23400, 23401, 23402, 23410))
    '23400-23402, 23410'
    """
    runs: list[list[int]] = []
    for port in sorted(ports):
        if runs and port == runs[-1][-1] + 1:
            runs[-1].append(port)
        else:
            runs.append([port])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


@dataclass(frozen=True)
class Matrix:
    """Who reaches whom: `cells[row][column]` is how `groups[row]` reaches `groups[column]`.

    Nodes that fare alike share a group, so that one bad node of 64 makes two groups.
    """

    groups: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[str, ...], ...]


def matrix(dials: Sequence[Dial]) -> Matrix:
    """Returns the N x N matrix of a survey's dials, folded.

    A cell is "ok", the worst word, or "" where nothing was tried.
    """
    words: dict[tuple[str, str], str] = {}
    for dial in dials:
        pair = (dial.source, dial.target)
        if words.get(pair, OK_CELL) == OK_CELL:
            words[pair] = OK_CELL if dial.answered else dial.word
    names = list(dict.fromkeys(name for pair in words for name in pair))
    groups = _groups(names, words)
    cells = tuple(tuple(_cell(row, column, words) for column in groups) for row in groups)
    return Matrix(groups, cells)


def _groups(
    names: Sequence[str], words: Mapping[tuple[str, str], str]
) -> tuple[tuple[str, ...], ...]:
    """Returns the names by how they fare, as a caller and as one that is called."""
    alike: dict[frozenset[tuple[str, str, str]], list[str]] = {}
    bad = [(pair, word) for pair, word in words.items() if word != OK_CELL]
    for name in names:
        out = {("to", target, word) for (source, target), word in bad if source == name}
        into = {("from", source, word) for (source, target), word in bad if target == name}
        alike.setdefault(frozenset(out | into), []).append(name)
    return tuple(tuple(group) for group in alike.values())


def _cell(row: Sequence[str], column: Sequence[str], words: Mapping[tuple[str, str], str]) -> str:
    found = {words.get((source, target), NOT_TRIED) for source in row for target in column}
    found.discard(NOT_TRIED)
    bad = sorted(found - {OK_CELL})
    return ", ".join(bad) if bad else (OK_CELL if found else NOT_TRIED)
