"""Everything that is printed, apart from the view of a run that goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from launcher.errors import FlowlaunchError, ManifestError

if TYPE_CHECKING:
    from rich.console import Console

    from launcher.core.model import LaunchPlan
    from launcher.run.following import Ending
    from launcher.store.job_folder import JobFolder

_FILE_WIDTH = 1000


def console() -> Console:
    """Returns what tables are printed on: stdout; a file or a pipe has no edge to wrap at."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)


def error(problem: FlowlaunchError) -> None:
    """Prints an error: what, where, and what to do about it."""
    lines = problem.problems if isinstance(problem, ManifestError) else [f"error: {problem}"]
    for line in lines:
        print(line, file=sys.stderr)
    if problem.hint:
        print(f"  hint: {problem.hint}", file=sys.stderr)


def json_value(value: object) -> None:
    """Prints one JSON value."""
    print(json.dumps(value, indent=2))


def plan(
    plan: LaunchPlan, folder: JobFolder, *, hidden: Sequence[str], to_stderr: bool = False
) -> None:
    """Prints a plan: machines, port, ranks, and each worker's environment and command."""
    from launcher.cli.summary import counted, size
    from launcher.core.plan import plan_to_json

    out = sys.stderr if to_stderr else sys.stdout
    fields = plan_to_json(plan, hidden=hidden)
    total = sum(file.size for file in folder.files)
    print(f"cluster    {plan.cluster}", file=out)
    files = counted(len(folder.files), "file")
    print(f"job        {plan.job.name}: {files}, {size(total)} of {folder.top}", file=out)
    print(f"machine    {json.dumps(fields['machines'])}", file=out)
    print(f"ctrl_port  {fields['ctrl_port']}", file=out)
    if plan.resume is not None:
        print(f"resume     step {plan.resume.step}, {plan.resume.directory}", file=out)
    nodes = counted(len(plan.nodes), "node")
    print(f"workers    {plan.world_size} on {nodes}\n", file=out)
    _table(plan, out)
    _workers(fields, out)


def _table(plan: LaunchPlan, out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("rank", "node", "addr", "local_rank", "node_rank", "python", box=None)
    nodes = {node.name: node for node in plan.nodes}
    for rank in plan.ranks:
        node = nodes[rank.node]
        cells = (rank.rank, rank.node, node.addr, rank.local_rank, rank.node_rank, node.python)
        table.add_row(*map(str, cells))
    Console(file=out, highlight=False).print(table)


def _workers(fields: dict[str, Any], out: TextIO) -> None:
    """Prints what all workers share once, then what is each one's own."""
    ranks = fields["ranks"]
    envs: list[dict[str, str]] = [rank["env"] for rank in ranks]
    shared = set(envs[0].items()).intersection(*(env.items() for env in envs))
    argv: list[str] = ranks[0]["argv"]
    command = ["python", *(["-m"] if argv[0] == "module" else []), *argv[1:]]
    print(f"\ncommand of every worker\n  {json.dumps(command)}", file=out)
    print("\nenvironment of every worker", file=out)
    for key, value in sorted(shared):
        print(f"  {key}={value}", file=out)
    for rank, env in zip(ranks, envs, strict=True):
        own = " ".join(f"{key}={value}" for key, value in sorted(set(env.items()) - shared))
        print(f"  rank {rank['rank']}: {own}", file=out)


def ending(ending: Ending, top: Path) -> None:
    """Prints how a run ended; its exit code and the reason come last."""
    from launcher.cli import summary

    lines = [*summary.failure(ending), *summary.result(ending, top)]
    lines.append(f"exit {ending.exit_code}: {summary.reason(ending)}")
    sys.stdout.flush()
    for line in lines:
        print(line, file=sys.stderr)


def let_go(top: Path) -> None:
    """Prints that a run goes on without this launcher, and how to come back to it."""
    notice(f"run {top.name} goes on, detached")
    notice(f"  flowlaunch attach {top.name}   follows it, and brings everything home")
    notice(f"  flowlaunch stop {top.name}     ends it")


def notice(text: str) -> None:
    """Prints a line of flowlaunch's own."""
    print(text, file=sys.stderr, flush=True)
