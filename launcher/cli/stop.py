"""`flowlaunch stop`: the end of a run, from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import options

if TYPE_CHECKING:
    from launcher.run.stopping import Stopped
    from launcher.store.runs import KnownRun


@click.command("stop", epilog="Example: flowlaunch stop last --grace 10")
@options.run_argument
@options.grace_option
@options.runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="What came of each node, as JSON.")
def command(run: str, grace: float, runs_dir: str | None, as_json: bool) -> None:
    """End the workers of RUN on every node, and say how many processes are left: 0.

    TERM to every worker, KILL after the grace; then each node looks for the run's id in the
    environment of every process. A launcher that follows the run, on whatever machine, brings the
    logs home and ends with 130. The exit code is 0 where nothing is left, else 69.
    """
    from launcher.cli import render
    from launcher.errors import EXIT_NODE
    from launcher.run.stopping import stop_run

    known = options.known_run(run, runs_dir)
    with options.TransportPool() as transports:
        stopped = stop_run(known, transports(), grace)
    if as_json:
        render.json_value(_to_json(stopped))
    else:
        _show(known, stopped)
    if any(each.left or each.error for each in stopped.nodes):
        raise click.exceptions.Exit(EXIT_NODE)


def _to_json(stopped: Stopped) -> dict[str, object]:
    nodes = [
        {
            "node": node.node,
            "left": list(node.left),
            "error": None if node.error is None else str(node.error),
        }
        for node in stopped.nodes
    ]
    return {"is_home": stopped.is_home, "nodes": nodes}


def _show(known: KnownRun, stopped: Stopped) -> None:
    from launcher.cli import render
    from launcher.cli.summary import counted

    for each in stopped.nodes:
        if each.error is not None:
            render.error(each.error)
            render.notice(f"  {_later(known, each.node)}")
        for process in each.left:
            render.notice(f"{each.node}: process {process} does not end")
    if not stopped.is_home:
        render.notice("not everything is here yet: `flowlaunch attach` brings what is left")
    reached = [each for each in stopped.nodes if each.error is None]
    left = sum(len(each.left) for each in reached)
    words = f"{known.run_id}: {counted(left, 'process')} left on {counted(len(reached), 'node')}"
    render.notice(words)


def _later(known: KnownRun, node: str) -> str:
    if known.is_detached:
        return f"{node} was not reached: what runs there goes on; stop it once it can be"
    return f"{node} was not reached: its agent ends its workers when its lease is over"
