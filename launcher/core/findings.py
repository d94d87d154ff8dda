"""From what nodes said to what is wrong with them: each finding has its cause and its fix. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from launcher.core.facts import DataFacts, NodeSurvey, Survey
from launcher.core.nodeset import fold


class Severity(enum.Enum):
    """Whether a run can use the node."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or will be.

    Attributes:
        topic: a stable word: login, runtime, ports, path, gpus, …
        nodes: those that it is about.
        message: what is so, one sentence without a final stop.
        cause: why, as far as that can be told, or "".
        fix: what to do about it; never empty.
    """

    severity: Severity
    topic: str
    nodes: tuple[str, ...]
    message: str
    fix: str
    cause: str = ""


def find(survey: Survey) -> list[Finding]:
    """Returns everything that is wrong: errors first, equal findings of several nodes as one."""
    from launcher.core.blocked_ways import find_blocked
    from launcher.core.node_rules import find_of_node

    world = sum(node.slots or 1 for node in survey.nodes)
    found = [finding for node in survey.nodes for finding in find_of_node(node, world)]
    found = _folded([*found, *find_differences(survey.nodes), *_data(survey.nodes)])
    found += find_blocked(survey)
    return sorted(found, key=lambda finding: finding.severity is not Severity.ERROR)


def unusable(findings: Sequence[Finding]) -> set[str]:
    """Returns the nodes that a run cannot use."""
    errors = (finding for finding in findings if finding.severity is Severity.ERROR)
    return {node for finding in errors for node in finding.nodes}


def _folded(findings: Sequence[Finding]) -> list[Finding]:
    merged: dict[Finding, list[str]] = {}
    for finding in findings:
        merged.setdefault(replace(finding, nodes=()), []).extend(finding.nodes)
    return [replace(finding, nodes=tuple(nodes)) for finding, nodes in merged.items()]


# What differs between nodes

_FIXES = {
    "oneflow": "`flowlaunch provision` gives every node the same one",
    "python": "`flowlaunch provision` gives every node the same runtime",
    "numpy": "`flowlaunch provision` gives every node the same runtime",
    "libc": "nothing, as long as both import OneFlow; the same system everywhere is safer",
    "machine": "leave that node out with --nodes: OneFlow's binaries are for x86-64 only",
    "cpu flags": "expect the slowest node's speed and other rounding, or leave that node out",
    "gpu driver": "install the same driver everywhere; NCCL may hang over two",
    "nccl": "install the same NCCL everywhere",
    "nccl settings": "set NCCL_* under `env` in the manifest rather than in login files",
    "proxies": "nothing for OneFlow, whose workers get no proxy; a job that downloads may differ",
    "locale": "set LANG under `env` in the manifest, e.g. C.UTF-8",
}
_ERRORS = ("oneflow", "machine")


def find_differences(nodes: Sequence[NodeSurvey]) -> Iterator[Finding]:
    """Yields a finding for each thing that should be equal and is not, the odd nodes named."""
    told = [(node.name, node.facts.same) for node in nodes if node.facts is not None]
    keys = dict.fromkeys(key for _, same in told for key in same)
    for key in keys:
        values = {name: same[key] for name, same in told if key in same}
        if len(set(values.values())) > 1:
            severity = Severity.ERROR if key in _ERRORS else Severity.WARNING
            message = f"{key} differs: {_variants(values)}"
            fix = _FIXES.get(key, "make it the same everywhere")
            yield Finding(severity, "same", _odd(values), message, fix)


def _odd(values: Mapping[str, str]) -> tuple[str, ...]:
    """Returns those with another value than most; the first node's where none is in most."""
    common = Counter(values.values()).most_common(1)[0][0]
    return tuple(name for name, value in values.items() if value != common)


def _variants(values: Mapping[str, str]) -> str:
    """Returns who has what, the odd ones first.

    >>> _variants({"n1": "a", "n2": "b", "n3": "a"})
    'b on n2, a on n[1,3]'
    """
    holders: dict[str, list[str]] = {}
    for name, value in values.items():
        holders.setdefault(value, []).append(name)
    rows = sorted(holders.items(), key=lambda item: len(item[1]))
    return ", ".join(f"{value or 'none'} on {fold(names)}" for value, names in rows)


def _data(nodes: Sequence[NodeSurvey]) -> Iterator[Finding]:
    """Yields what is wrong with the paths of --data."""
    by_path: dict[str, dict[str, DataFacts]] = {}
    for node in nodes:
        for data in node.facts.data if node.facts is not None else ():
            by_path.setdefault(data.path, {})[node.name] = data
    for path, found in by_path.items():
        for name, data in found.items():
            if data.error:
                fix = "copy it there, mount the disk it is on, or mend its permissions"
                message = f"{path}: {data.error}"
                yield Finding(Severity.ERROR, "data", (name,), message, fix)
        values = {name: _content(data) for name, data in found.items() if not data.error}
        if len(set(values.values())) > 1:
            message = f"{path} differs: {_variants(values)}"
            fix = "copy it anew from a node that has the right one, e.g. with rsync --checksum"
            yield Finding(Severity.ERROR, "data", _odd(values), message, fix)


def _content(data: DataFacts) -> str:
    what = f"{data.files} files, " if data.kind == "directory" else ""
    return f"{what}{data.bytes} bytes, hash {data.sha256[:12]}"
