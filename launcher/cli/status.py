"""`flowlaunch status`: one run, as its files tell of it."""

from __future__ import annotations

import time

import click

from launcher.cli import options


@click.command("status", epilog="Example: flowlaunch status last")
@options.run_argument
@options.runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def command(run: str, runs_dir: str | None, as_json: bool) -> None:
    """Show one run: every worker, restarts, last metrics, checkpoints, first error.

    RUN is an id, a unique beginning of one, a --name, or `last`. Nothing is asked of the nodes.
    """
    from launcher.cli import render, run_view

    told = run_view.described(options.known_run(run, runs_dir), time.time())
    if as_json:
        render.json_value(told)
    else:
        run_view.show_status(told)
