"""The text of a first cluster.yaml, for nodes that were looked at. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# From so many on, nodes whose names and addresses run in step are written as one entry.
LEAST_RANGE = 3

_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>\D*)$")


@dataclass(frozen=True)
class FirstNode:
    """One node of a first manifest.

    Attributes:
        host: what the launcher dials.
        slots: a number of workers, or "gpus".
        about: what it has, for the reader.
        user: who logs in, where that is not the same for all.
    """

    name: str
    addr: str
    host: str
    slots: int | str
    about: str
    user: str | None = None


@dataclass(frozen=True)
class FirstManifest:
    """What goes into the file.

    Attributes:
        command: how it came to be.
        network: what is said of the addresses.
        login: the keys of `ssh` that hold for every node; "user" stands by itself.
    """

    command: str
    network: str
    nodes: tuple[FirstNode, ...]
    login: tuple[tuple[str, str | int], ...] = ()


_HEAD = """\
# Written by `{command}`. `flowlaunch check` tries it; its every key: `flowlaunch schema`.

name: lab
ctrl_port: auto             # rendezvous on the first node: a free port, or a number where a
                            # firewall wants one, e.g. 12138
data_port: auto             # the workers' own ports: any, or the first of a range for firewalls,
                            # two a worker, e.g. 23400

defaults:                   # what every node has where it does not say otherwise
{defaults}
nodes:                      # in rank order
  # {network}
{nodes}
# Names for sets of nodes, as in `flowlaunch run --nodes @some`:
# groups: {{some: "{example}"}}
#
# env: {{OMP_NUM_THREADS: "1"}}
# checkpoints: {{keep: 3}}    # the newest three are kept; all without this line
"""


def first_manifest(wanted: FirstManifest) -> str:
    """Returns the text of cluster.yaml."""
    common = _common_slots(wanted.nodes)
    defaults = [f"  user: {json.dumps(value)}" for key, value in wanted.login if key == "user"]
    rest = {key: value for key, value in wanted.login if key != "user"}
    defaults += [f"  ssh: {_flow(rest)}"] if rest else []
    if common is not None:
        why = "one a GPU" if common == "gpus" else "workers a node: one a core"
        defaults.append(f"  slots: {common}".ljust(28) + f"# {why}")
    defaults.append(
        "  python: auto".ljust(28) + "# flowlaunch's own runtime: `flowlaunch provision`"
    )
    return _HEAD.format(
        command=wanted.command,
        defaults="\n".join(defaults) + "\n",
        network=wanted.network,
        nodes="".join(_entries(wanted.nodes, common)),
        example=wanted.nodes[0].name,
    )


def _common_slots(nodes: Sequence[FirstNode]) -> int | str | None:
    slots = {node.slots for node in nodes}
    return slots.pop() if len(slots) == 1 else None


def _entries(nodes: Sequence[FirstNode], common: int | str | None) -> Iterator[str]:
    for run in _runs(nodes):
        first = run[0]
        fields: dict[str, object] = {
            "name": _range([node.name for node in run]),
            "addr": _range([node.addr for node in run]),
        }
        if common is None:
            fields["slots"] = first.slots
        login = {"host": _range([node.host for node in run])} if first.host != first.addr else {}
        login.update({"user": first.user} if first.user is not None else {})
        fields.update({"ssh": login} if login else {})
        yield f"  # {first.about}{' each' if len(run) > 1 else ''}\n  - {_flow(fields)}\n"


def _runs(nodes: Sequence[FirstNode]) -> Iterator[list[FirstNode]]:
    """Yields the nodes as they are written: one by one, or several in step."""
    run: list[FirstNode] = []
    for node in nodes:
        if run and not _follows(run[-1], node):
            yield from _run_or_singles(run)
            run = []
        run.append(node)
    yield from _run_or_singles(run)


def _run_or_singles(run: list[FirstNode]) -> Iterator[list[FirstNode]]:
    if len(run) >= LEAST_RANGE:
        yield run
    else:
        yield from ([node] for node in run)


def _follows(one: FirstNode, other: FirstNode) -> bool:
    return (
        (one.slots, one.about, one.user) == (other.slots, other.about, other.user)
        and all(
            _successor(getattr(one, key)) == getattr(other, key) for key in ("name", "addr", "host")
        )
        and (one.host == one.addr) == (other.host == other.addr)
    )


def _successor(text: str) -> str:
    """Returns the next name of a row, "" where it is no row.

    >>> _successor("gpu09"), _successor("10.0.0.9"), _successor("far")
    ('gpu10', '10.0.0.10', '')
    """
    found = _NUMBERED.fullmatch(text)
    if found is None:
        return ""
    number = found["number"]
    return f"{found['before']}{int(number) + 1:0{len(number)}}{found['after']}"


def _range(texts: Sequence[str]) -> str:
    """Returns a row of names as one.

    >>> _range(["gpu08", "gpu09", "gpu10"]), _range(["10.0.0.9", "10.0.0.10"]), _range(["far"])
    ('gpu[08-10]', '10.0.0.[9-10]', 'far')
    """
    if len(texts) == 1:
        return texts[0]
    first, last = _NUMBERED.fullmatch(texts[0]), _NUMBERED.fullmatch(texts[-1])
    assert first is not None
    assert last is not None
    return f"{first['before']}[{first['number']}-{last['number']}]{first['after']}"


def _flow(fields: object) -> str:
    """Returns a mapping as YAML on one line."""
    if isinstance(fields, dict):
        return "{" + ", ".join(f"{key}: {_flow(value)}" for key, value in fields.items()) + "}"
    text = str(fields)
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*|\d+|\d+(\.\d+){3}", text)
    reserved = text.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
    return text if plain and not reserved else json.dumps(text)
