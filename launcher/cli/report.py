"""`flowlaunch report`: a run as one HTML page."""

from __future__ import annotations

import time
from pathlib import Path

import click

from launcher.cli import options


@click.command("report", epilog="Example: flowlaunch report last")
@options.run_argument
@click.option("-o", "--output", metavar="FILE", help="Where to write it (the run's report.html).")
@options.runs_dir_option
def command(run: str, output: str | None, runs_dir: str | None) -> None:
    """Write one HTML page of RUN: an id, the beginning of one, a --name, or `last`.

    It has the curves, the step time of every rank, the nodes' health, what happened and when, the
    first error, checkpoints, plan and manifest. It stands alone and asks no network for anything.
    """
    from launcher.cli import report_page
    from launcher.cli.report_data import gather
    from launcher.store.atomic import replace_file
    from launcher.store.run_record import store_error

    known = options.known_run(run, runs_dir)
    where = Path(output or known.paths.page)
    page = report_page.page(gather(known), time.time())
    try:
        replace_file(where, page.encode("utf-8", "replace"))
    except OSError as error:
        raise store_error(error, where) from None
    click.echo(where)
