"""How `reap` shows what it found and what it did."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from launcher.cli import render
from launcher.cli.lines import harmless
from launcher.cli.run_view import span
from launcher.cli.summary import counted, size
from launcher.core.nodeset import fold
from launcher.core.reaping import FoundProcess, FoundRun, Verdict
from launcher.run.reaping import NodeReaped, Wish

# Of a run's processes, so many are named.
_MAX_NAMED = 6


def show(reaped: Sequence[NodeReaped], verdicts: Mapping[str, Verdict], wish: Wish) -> None:
    """Prints what was found on each node, then the survivors, or that there are none."""
    for node in reaped:
        if node.error is not None:
            render.error(node.error)
        for found in node.found:
            for line in _found_lines(node, found, verdicts, wish):
                render.notice(harmless(f"{node.node}: {line}"))
    for node in reaped:
        for process in node.survivors:
            render.notice(harmless(f"{node.node}: survives: {_process(process)}"))
    render.notice(_verdict(reaped, wish))


def _found_lines(
    node: NodeReaped, found: FoundRun, verdicts: Mapping[str, Verdict], wish: Wish
) -> Iterator[str]:
    if found.processes:
        verdict = verdicts[found.run]
        done = "would be ended" if not wish.ends else "ended"
        what = done if verdict.ends else "left alone"
        named = ", ".join(map(_process, found.processes[:_MAX_NAMED]))
        more = len(found.processes) - _MAX_NAMED
        named += f" and {more} more" if more > 0 else ""
        yield f"run {found.run}: {what}, since {verdict.reason}: {named}"
    if found.directory and not found.processes:
        removed = "would be removed" if not wish.ends else "removed"
        what = removed if found.run in node.removed else "stays"
        about = f"{size(found.bytes)}, {span(found.age_s)} old"
        yield f"run {found.run}: its directory {what}: {found.directory} ({about})"


def _process(process: FoundProcess) -> str:
    if process.kind == "agent":
        return f"agent {process.pid}"
    return f"process {process.pid} of rank {process.rank}"


def _verdict(reaped: Sequence[NodeReaped], wish: Wish) -> str:
    reached = [node for node in reaped if node.error is None]
    missed = [node.node for node in reaped if node.error is not None]
    if not wish.ends:
        waiting = sum(sum(node.ended.values()) for node in reached)
        words = f"{counted(waiting, 'process')} would be ended on {counted(len(reached), 'node')}"
    else:
        survivors = sum(len(node.survivors) for node in reached)
        words = f"{counted(survivors, 'survivor')} on {counted(len(reached), 'node')}"
    return words + (f"; not reached: {fold(missed)}" if missed else "")


def as_json(reaped: Sequence[NodeReaped], verdicts: Mapping[str, Verdict]) -> dict[str, object]:
    """Returns what was found and done as JSON values."""
    return {
        "survivors": sum(len(node.survivors) for node in reaped),
        "verdicts": {run: dataclasses.asdict(verdict) for run, verdict in verdicts.items()},
        "nodes": [
            {
                **{key: value for key, value in vars(node).items() if key != "error"},
                "found": [dataclasses.asdict(found) for found in node.found],
                "survivors": [dataclasses.asdict(process) for process in node.survivors],
                "error": None if node.error is None else str(node.error),
            }
            for node in reaped
        ],
    }
