"""`flowlaunch ps`: the runs, newest first."""

from __future__ import annotations

import time

import click

from launcher.cli import options


@click.command("ps", epilog="Example: flowlaunch ps --json")
@options.runs_dir_option
@click.option("-n", "--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
def command(runs_dir: str | None, last: int | None, as_json: bool) -> None:
    """List the runs: id, name, state, nodes, workers, age, last step.

    A run is "detached" while it goes on without a launcher, and "abandoned" where its launcher
    died before its end.
    """
    from launcher.cli import render, run_view
    from launcher.store.run_record import runs_directory
    from launcher.store.runs import list_runs

    runs = runs_directory(runs_dir)
    rows = run_view.listed(list_runs(runs)[:last], time.time())
    if as_json:
        render.json_value(rows)
    elif rows:
        run_view.show_runs(rows)
    else:
        render.notice(f"there are no runs in {runs}")
