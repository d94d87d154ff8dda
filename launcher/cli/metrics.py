"""`flowlaunch metrics`: what the job reported, as a table, CSV, a plot or for TensorBoard."""

from __future__ import annotations

import sys

import click

from launcher.cli import options
from launcher.cli.following import EXIT_PIPE


@click.command("metrics", epilog="Example: flowlaunch metrics last --plot")
@options.run_argument
@click.option("--csv", "as_csv", is_flag=True, help="Every report as a row of CSV.")
@click.option("--plot", is_flag=True, help="Curves, in the terminal.")
@click.option(
    "--tensorboard", metavar="DIR", help="Write event files for TensorBoard below DIR/<run>."
)
@click.option("--json", "as_json", is_flag=True, help="Every report as a JSON object a line.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--rank", metavar="SET", help="Only these ranks: '0,2-5'.")
@options.runs_dir_option
def command(
    run: str,
    as_csv: bool,
    plot: bool,
    tensorboard: str | None,
    as_json: bool,
    follow: bool,
    rank: str | None,
    runs_dir: str | None,
) -> None:
    """Show what the job of RUN reported: an id, the beginning of one, a --name, or `last`.

    Without an option, each metric's newest, lowest and highest value.
    """
    from launcher.cli import metrics_view
    from launcher.cli.printing import let_go_of
    from launcher.core.nodeset import SetError, expand

    if sum((as_csv, plot, as_json, tensorboard is not None)) > 1:
        raise click.UsageError("only one of --csv, --plot, --tensorboard and --json")
    try:
        ranks = None if rank is None else frozenset(map(int, expand(f"[{rank}]")))
    except SetError as error:
        raise click.BadParameter(str(error), param_hint="--rank") from None
    known = options.known_run(run, runs_dir)
    printer: metrics_view.Printer
    if as_csv:
        printer = metrics_view.CsvPrinter(metrics_view.names_of(known, ranks))
    elif plot:
        printer = metrics_view.PlotPrinter(known.run_id, is_live=follow)
    elif tensorboard is not None:
        printer = metrics_view.TensorboardPrinter(tensorboard, known.run_id)
    elif as_json:
        printer = metrics_view.JsonPrinter()
    else:
        printer = metrics_view.TablePrinter(is_live=follow)
    try:
        metrics_view.show(known, printer, ranks, follow=follow)
    except BrokenPipeError:
        let_go_of(sys.stdout)
        raise click.exceptions.Exit(EXIT_PIPE) from None
