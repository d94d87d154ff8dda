"""How `check` shows what it found: one folded table, then each finding with its cause and fix."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from launcher.cli import render, summary
from launcher.core.blocked_ways import matrix
from launcher.core.facts import NodeFacts, NodeSurvey, Survey
from launcher.core.findings import Finding, Severity, unusable
from launcher.core.model import ClusterSpec
from launcher.core.nodeset import fold

# A wider matrix is of no use on a terminal; the findings say the same.
MOST_GROUPS = 16
_WORDS = {"timeout": "no answer", "stranger": "other"}


class Waiting:
    """One line on a terminal that says how many nodes have answered; silent elsewhere."""

    def __init__(self) -> None:
        self._status: Status | None = None
        if sys.stderr.isatty():
            self._status = Console(stderr=True).status("")

    def __enter__(self) -> Waiting:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._status is not None:
            self._status.stop()

    def on_progress(self, done: int, total: int) -> None:
        """Shows how many nodes have answered."""
        if self._status is not None:
            self._status.update(f"checking: {done}/{total} nodes have answered")


def show(
    cluster: ClusterSpec, survey: Survey, findings: Sequence[Finding], elapsed_s: float
) -> None:
    """Prints the table, the findings, the matrix where a way is blocked, and the verdict."""
    console = render.console()
    console.print(_table(survey, findings))
    for finding in findings:
        console.print()
        _print_finding(console, finding)
    if any(not dial.answered for dial in survey.dials):
        console.print()
        _print_matrix(console, survey)
    console.print()
    console.print(escape(_verdict(cluster, survey, findings, elapsed_s)))


def show_findings(findings: Sequence[Finding]) -> None:
    """Prints findings alone."""
    console = render.console()
    for finding in findings:
        _print_finding(console, finding)


def _table(survey: Survey, findings: Sequence[Finding]) -> Table:
    columns = ("nodes", "state", "oneflow", "python", "slots", "cores", "gpus", "memory", "disk")
    table = Table(*columns, "clock", box=None, header_style="bold", pad_edge=False)
    groups: dict[tuple[str, ...], list[NodeSurvey]] = {}
    for node in survey.nodes:
        groups.setdefault(_kind(node, findings), []).append(node)
    for kind, nodes in groups.items():
        state, *rest = kind
        colour = {"ok": "green", "warning": "yellow"}.get(state, "red")
        names = escape(fold(node.name for node in nodes))
        table.add_row(names, f"[{colour}]{state}[/]", *map(escape, rest), *_ranges(nodes))
    return table


def _kind(node: NodeSurvey, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Returns the cells in which nodes of one row are equal."""
    topics = [finding.topic for finding in findings if node.name in finding.nodes]
    state = "ok"
    if node.name in unusable(findings):
        state = "cannot be used"
    elif topics:
        state = "warning"
    slots = str(node.slots) if node.slots is not None else "-"
    if node.facts is None:
        return (state, "-", "-", slots, "-", "-")
    oneflow = node.facts.oneflow
    version, python = (oneflow.oneflow, oneflow.python) if oneflow is not None else ("", "")
    return (state, version or "-", python or "-", slots, str(node.facts.cores), _gpus(node.facts))


def _gpus(facts: NodeFacts) -> str:
    models = {model for model in facts.gpus if model}
    name = f" {models.pop()}" if len(models) == 1 else ""
    return f"{len(facts.gpus)}{name}" if facts.gpus else "-"


def _ranges(nodes: Sequence[NodeSurvey]) -> list[str]:
    facts = [node.facts for node in nodes if node.facts is not None]
    clocks = [abs(node.ahead_s) for node in nodes if node.ahead_s is not None]
    return [
        _least(each.memory_free_bytes for each in facts),
        _least(each.home_free_bytes for each in facts),
        f"±{_seconds(max(clocks))}" if clocks else "-",
    ]


def _least(sizes: Iterable[int | None]) -> str:
    known = [size for size in sizes if size is not None]
    return summary.size(min(known)) if known else "-"


def _seconds(time_s: float) -> str:
    """Returns a time for people.

    >>> _seconds(0.0015), _seconds(3.25)
    ('2 ms', '3.2 s')
    """
    return f"{time_s * 1000:.0f} ms" if time_s < 1 else f"{time_s:.1f} s"


def _print_finding(console: Console, finding: Finding) -> None:
    colour = "red" if finding.severity is Severity.ERROR else "yellow"
    where = "" if finding.topic == "path" else f"{fold(finding.nodes)}: "
    console.print(f"[{colour}]{finding.severity.value}[/]  {escape(where + finding.message)}")
    if finding.cause:
        console.print(f"  cause: {escape(finding.cause)}")
    console.print(f"  fix:   {escape(finding.fix)}")


def _print_matrix(console: Console, survey: Survey) -> None:
    shown = matrix(survey.dials)
    if len(shown.groups) > MOST_GROUPS:
        return
    names = [escape(fold(group)) for group in shown.groups]
    table = Table("from \\ to", *names, box=None, header_style="bold", pad_edge=False)
    for name, cells in zip(names, shown.cells, strict=True):
        table.add_row(f"[bold]{name}[/]", *map(_cell, cells))
    console.print("who reaches whom, on the addresses and ports of a run")
    console.print(table)


def _cell(word: str) -> str:
    if word in ("", "ok"):
        return word
    return f"[red]{escape(', '.join(_WORDS.get(each, each) for each in word.split(', ')))}[/]"


def _verdict(
    cluster: ClusterSpec, survey: Survey, findings: Sequence[Finding], elapsed_s: float
) -> str:
    total, bad = len(survey.nodes), unusable(findings)
    warnings = sum(finding.severity is Severity.WARNING for finding in findings)
    dialled = {(dial.source, dial.target) for dial in survey.dials}
    answered = dialled - {(dial.source, dial.target) for dial in survey.dials if not dial.answered}
    ports = f"ctrl_port {cluster.ctrl_port or 'auto'}, data_port {cluster.data_port or 'auto'}"
    told = (
        f"{len(answered)} of {len(dialled)} ways between them answer ({ports}); {elapsed_s:.1f} s"
    )
    if bad:
        return f"{len(bad)} of {total} nodes cannot be used: {fold(sorted(bad))}; {told}"
    extra = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    return f"{total} node{'s' if total > 1 else ''} ready{extra}; {told}"


def as_json(survey: Survey, findings: Sequence[Finding], elapsed_s: float) -> dict[str, object]:
    """Returns everything that was found out as JSON values."""
    bad = unusable(findings)
    return {
        "ok": not bad,
        "elapsed_s": round(elapsed_s, 3),
        "nodes": [_node_to_json(node, node.name not in bad) for node in survey.nodes],
        "findings": [
            {**dataclasses.asdict(finding), "severity": finding.severity.value}
            for finding in findings
        ],
        "dials": [dataclasses.asdict(dial) for dial in survey.dials],
    }


def _node_to_json(node: NodeSurvey, usable: bool) -> dict[str, object]:
    trouble = node.trouble
    return {
        "name": node.name,
        "addr": node.node.addr,
        "usable": usable,
        "slots": node.slots,
        "login_s": node.login_s,
        "clock_ahead_s": node.ahead_s,
        "ports": list(node.bound),
        "ports_taken": {str(port): who for port, who in node.taken.items()},
        "trouble": None if trouble is None else dataclasses.asdict(trouble),
        "facts": None if node.facts is None else _facts_to_json(node.facts),
    }


def _facts_to_json(facts: NodeFacts) -> Mapping[str, object]:
    return dataclasses.asdict(dataclasses.replace(facts, same=dict(facts.same)))
