"""The nodes of a manifest: which names and addresses each entry stands for, and what clashes.

It reads the tree rather than the validated form, so that a wrong type in one place does not hide
a duplicate name in another.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from launcher.core.nodeset import (
    MOST_NODES,
    SetError,
    UnknownGroupError,
    evaluate,
    expand,
    fold,
)
from launcher.core.problem import Problem, path_text, quoted, suggestion
from launcher.core.yaml_tree import Node

# A group may name every node, and a manifest may have many groups.
MOST_GROUPED = 1_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_OWN_HOST = "a host is one node's own; write it under that node's 'ssh'"
_TWO_USERS = "the user is given twice; 'user' is short for 'ssh.user'"
_NUMBERS = re.compile(r"[0-9.]+")


@dataclass(frozen=True)
class Entry:
    """One entry of `nodes`, which may stand for many.

    Attributes:
        names, addrs, hosts: of each node that it stands for, of equal length; an address is ""
            where a local node leaves it open, a host is None where it is the address. Empty
            where they cannot be read.
    """

    index: int
    node: Node
    names: tuple[str, ...]
    addrs: tuple[str, ...]
    hosts: tuple[str | None, ...]

    @property
    def line(self) -> int:
        """The line that the entry starts on."""
        return self.node.mark[0]


@dataclass(frozen=True)
class Cluster:
    """What the entries come to.

    Attributes:
        groups: the members of each group, in manifest order.
        spares: the names of the spares.
    """

    entries: tuple[Entry, ...]
    groups: Mapping[str, tuple[str, ...]]
    spares: frozenset[str]


def read_cluster(tree: Node) -> tuple[Cluster, list[Problem]]:
    """Reads what takes several values together: ranges, addresses, duplicates, groups, spares."""
    problems: list[Problem] = []
    entries = _entries(tree, problems)
    problems += _duplicates(entries, "name") + _duplicates(entries, "addr")
    problems += _same_ports(tree) + _login_slips(tree)
    sets = _Sets(entries, complete=all(entry.names for entry in entries))
    groups = sets.groups(tree.get("groups"))
    spares = sets.spares(tree.get("spares"))
    return Cluster(entries, groups, spares), problems + sets.problems


def _entries(tree: Node, problems: list[Problem]) -> tuple[Entry, ...]:
    nodes, defaults = tree.get("nodes"), tree.get("defaults")
    items = nodes.value if nodes is not None and isinstance(nodes.value, list) else []
    entries: list[Entry] = []
    left = MOST_NODES
    for index, node in enumerate(items):
        reader = _EntryReader(index, node, defaults, left)
        entries.append(reader.entry())
        problems += reader.problems
        left -= len(entries[-1].names)
        if left < 0:
            problems.append(Problem(*node.mark, "nodes", f"more than {MOST_NODES} nodes"))
            break
    return tuple(entries)


class _EntryReader:
    """Reads one entry, and notes what is wrong with it."""

    def __init__(self, index: int, node: Node, defaults: Node | None, most: int) -> None:
        self.problems: list[Problem] = []
        self._index = index
        self._node = node
        self._most = most
        transport = node.get("transport") or (defaults and defaults.get("transport"))
        self._is_local = transport is not None and transport.value == "local"

    def entry(self) -> Entry:
        names = self._names()
        addrs: tuple[str, ...] = self._addrs(names)
        hosts = self._hosts(names)
        if self._is_local:
            self._refuse_ssh()
        return Entry(self._index, self._node, names, addrs, hosts)

    def _names(self) -> tuple[str, ...]:
        names = self._expanded("name", self._node.get("name"))
        bad = next((name for name in names if not _NAME.fullmatch(name)), None)
        if bad is not None:
            what = "letters, digits, '_', '.' and '-', the first a letter or digit"
            self._note("name", self._node.get("name"), f"expected {what}, got {quoted(bad)}")
            return ()
        return names

    def _addrs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        given = self._node.get("addr")
        if given is None and self._is_local:
            return ("",) * len(names)
        if given is None:
            self._check_addresses("name", self._node.get("name"), names)
            return names
        addrs = self._expanded("addr", given)
        self._check_length("addr", given, names, addrs)
        self._check_addresses("addr", given, addrs)
        return addrs

    def _hosts(self, names: tuple[str, ...]) -> tuple[str | None, ...]:
        ssh = self._node.get("ssh")
        given = ssh.get("host") if ssh is not None else None
        if given is None:
            return (None,) * len(names)
        hosts = self._expanded("ssh.host", given)
        self._check_length("ssh.host", given, names, hosts)
        bad = next((host for host in hosts if not is_dialable(host)), None)
        if bad is not None:
            reason = "a host name, an address or a Host of ~/.ssh/config, without port"
            self._note("ssh.host", given, f"expected {reason}, got {quoted(bad)}")
        return tuple(host.strip("[]") for host in hosts)

    def _expanded(self, place: str, given: Node | None) -> tuple[str, ...]:
        if given is None or not isinstance(given.value, str) or not given.value:
            return ()
        if place != "name" and _is_ipv6(given.value):
            return (given.value,)
        try:
            return expand(given.value, self._most)
        except SetError as error:
            self._note(place, given, str(error))
            return ()

    def _check_length(
        self, place: str, given: Node, names: tuple[str, ...], others: tuple[str, ...]
    ) -> None:
        if names and others and len(names) != len(others):
            message = f"the name stands for {len(names)} nodes, {quoted(str(given.value))} for "
            self._note(place, given, f"{message}{len(others)}; both run in step")

    def _check_addresses(self, place: str, given: Node | None, addrs: Iterable[str]) -> None:
        for addr in addrs:
            reason = _addr_fault(addr)
            if reason:
                hint = "; give the node an 'addr'" if place == "name" else ""
                self._note(place, given, f"{reason}{hint}")
                return

    def _refuse_ssh(self) -> None:
        for key in ("user", "ssh"):
            given = self._node.get(key)
            if given is not None:
                where = path_text(("nodes", self._index, key))
                message = "has no use with 'transport: local'; take one of them out"
                self.problems.append(Problem(*given.key_mark, where, message))

    def _note(self, place: str, given: Node | None, message: str) -> None:
        where = path_text(("nodes", self._index, *place.split(".")))
        mark = given.mark if given is not None else self._node.mark
        self.problems.append(Problem(*mark, where, message))


def is_dialable(host: str) -> bool:
    """Tells whether the launcher can dial a host: a name, an alias, IPv4 or IPv6."""
    return bool(_HOST.fullmatch(host)) or _is_ipv6(host)


def _is_ipv6(text: str) -> bool:
    if ":" not in text or len(text) > 100:
        return False
    try:
        ipaddress.IPv6Address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _addr_fault(addr: str) -> str:
    """Returns why other nodes cannot dial an address with OneFlow, or ""."""
    if _IPV4.fullmatch(addr):
        return "" if addr != "0.0.0.0" else "'0.0.0.0' is no address that can be dialled"  # noqa: S104
    if _is_ipv6(addr):
        return f"{quoted(addr)} is IPv6, at which OneFlow 0.9 aborts; give the node's IPv4 address"
    if _NUMBERS.fullmatch(addr) or not _HOST.fullmatch(addr):
        return f"expected an IPv4 address or a host name, got {quoted(addr)}"
    return ""


def _duplicates(entries: Iterable[Entry], kind: str) -> list[Problem]:
    """Returns one problem for each pair of entries that share names or addresses."""
    owners: dict[str, tuple[Entry, int]] = {}
    shared: dict[tuple[int, int], tuple[Entry, Entry, list[str], list[str]]] = {}
    for entry in entries:
        words = entry.names if kind == "name" else entry.addrs
        for place, (name, word) in enumerate(zip(entry.names, words, strict=False)):
            owner, first = owners.setdefault(word.lower(), (entry, place))
            if not word or (owner is entry and first == place):
                continue
            owner_name = owner.names[first]
            # A name that is there twice is said once, not again as an address.
            if kind == "name" or owner_name != name:
                pair = (owner.index, entry.index)
                found = shared.setdefault(pair, (owner, entry, [], []))
                found[2].append(word)
                found[3].append(owner_name)
    return [_duplicate(kind, *found) for found in shared.values()]


def _duplicate(
    kind: str, owner: Entry, entry: Entry, words: list[str], owners: list[str]
) -> Problem:
    given = entry.node.get(kind)
    place, mark = (kind, given.mark) if given is not None else ("name", entry.node.mark)
    if owner is entry:
        message = f"gives {quoted(fold(set(words)))} twice"
    elif kind == "name":
        message = f"{quoted(fold(words))} is the name of a node on line {owner.line} already"
    else:
        other = f"{quoted(fold(owners))} on line {owner.line}"
        message = f"{quoted(fold(words))} is the address of {other} already"
    return Problem(*mark, path_text(("nodes", entry.index, place)), message)


def _same_ports(tree: Node) -> list[Problem]:
    ctrl, data = tree.get("ctrl_port"), tree.get("data_port")
    if ctrl is None or data is None or not isinstance(ctrl.value, int) or ctrl.value != data.value:
        return []
    message = f"{ctrl.value} is the ctrl_port already (line {ctrl.mark[0]})"
    return [Problem(*data.mark, "data_port", message)]


def _login_slips(tree: Node) -> list[Problem]:
    """Returns where a login is said twice, or for every node what only one can have."""
    nodes, defaults = tree.get("nodes"), tree.get("defaults")
    levels: list[tuple[tuple[str | int, ...], Node]] = []
    if nodes is not None and isinstance(nodes.value, list):
        levels = [(("nodes", index), node) for index, node in enumerate(nodes.value)]
    problems: list[Problem] = []
    if defaults is not None:
        levels.append((("defaults",), defaults))
        problems += _note_key(("defaults", "ssh"), defaults.get("ssh"), "host", _OWN_HOST)
    for path, level in levels:
        if level.get("user") is not None:
            problems += _note_key((*path, "ssh"), level.get("ssh"), "user", _TWO_USERS)
    return problems


def _note_key(
    path: tuple[str | int, ...], holder: Node | None, key: str, message: str
) -> list[Problem]:
    given = holder.get(key) if holder is not None else None
    return [Problem(*given.key_mark, path_text((*path, key)), message)] if given else []


class _Sets:
    """Reads groups and spares.

    Args:
        complete: whether every name is known, so that one that is not can be called unknown.
    """

    def __init__(self, entries: Iterable[Entry], *, complete: bool) -> None:
        names = [name for entry in entries for name in entry.names]
        self.problems: list[Problem] = []
        self._place = {name: place for place, name in enumerate(names)}
        self._complete = complete
        self._groups: dict[str, tuple[str, ...]] = {}
        self._written: Collection[str] = ()

    def groups(self, given: Node | None) -> Mapping[str, tuple[str, ...]]:
        """Reads `groups` in the order written; each may name those above it."""
        items = given.value if given is not None and isinstance(given.value, dict) else {}
        self._written = items.keys()
        left = MOST_GROUPED
        for name, node in items.items():
            members = self._members(("groups", name), node)
            left -= len(members)
            if left < 0:
                message = f"the groups have more than {MOST_GROUPED} members in all"
                self.problems.append(Problem(*node.mark, "groups", message))
                break
            self._groups[name] = members
        return self._groups

    def spares(self, given: Node | None) -> frozenset[str]:
        """Reads `spares`, which must leave a node to run on."""
        if given is None:
            return frozenset()
        spares = self._members(("spares",), given)
        if self._complete and spares and len(spares) == len(self._place):
            message = "every node is a spare; leave at least one to run on"
            self.problems.append(Problem(*given.mark, "spares", message))
        return frozenset(spares)

    def _members(self, path: tuple[str, ...], node: Node) -> tuple[str, ...]:
        if not isinstance(node.value, str) or not node.value:
            return ()
        try:
            selection = evaluate(node.value, self._groups)
        except UnknownGroupError as error:
            self._note(path, node, self._below(error.group) or str(error))
            return ()
        except SetError as error:
            self._note(path, node, str(error))
            return ()
        unknown = selection.named - self._place.keys()
        if unknown and self._complete:
            near = suggestion(min(unknown), self._place) if len(unknown) == 1 else ""
            self._note(path, node, f"no node is called {quoted(fold(sorted(unknown)))}{near}")
        known = selection.chosen & self._place.keys()
        return tuple(sorted(known, key=self._place.__getitem__))

    def _below(self, group: str) -> str:
        if group not in self._written:
            return ""
        return f"{quoted(f'@{group}')} is not above this line; a group can name those above it"

    def _note(self, path: tuple[str, ...], node: Node, message: str) -> None:
        self.problems.append(Problem(*node.mark, path_text(path), message))
