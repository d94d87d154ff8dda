"""`flowlaunch reap`: what runs left on the nodes, found, shown, ended, and proven gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from launcher.core.model import NodeSpec
    from launcher.core.reaping import KnownStanding


@click.command("reap", epilog="Example: flowlaunch reap -c cluster.yaml")
@click.argument("run", required=False, shell_complete=options.complete_run)
@options.cluster_option
@options.nodes_option
@options.grace_option
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=10,
    metavar="N",
    help="The directories of the newest N runs stay on each node (10).",
)
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=7.0,
    metavar="DAYS",
    help="Of the others go those to which nobody has written for longer (7).",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be ended and removed.")
@options.runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="What was found and done, as JSON.")
def command(
    run: str | None,
    cluster: str | None,
    nodes: str | None,
    grace: float,
    keep: int,
    older_than: float,
    dry_run: bool,
    runs_dir: str | None,
    as_json: bool,
) -> None:
    """Find and end what runs left on the nodes of the manifest, or of RUN.

    Processes are known by their run's id alone, and only your own are looked at. A run that a
    launcher follows is left alone, and so is a detached one, unless RUN names it. Directories of
    runs on the nodes are removed by age and number; with RUN, only its own. The exit code is 0
    where nothing survives, else 69.
    """
    from launcher.cli import reap_view, render
    from launcher.core.reaping import DAY_S
    from launcher.errors import EXIT_NODE
    from launcher.run.reaping import Wish, reap
    from launcher.store.run_record import runs_directory

    runs = runs_directory(runs_dir)
    run_id, machines = _where(run, cluster, nodes, runs)
    wish = Wish(run_id, grace, keep, older_than * DAY_S, ends=not dry_run)
    with options.TransportPool() as transports:
        reaped, verdicts = reap(machines, transports(), _known(runs), wish)
    if as_json:
        render.json_value(reap_view.as_json(reaped, verdicts))
    else:
        reap_view.show(reaped, verdicts, wish)
    if any(each.survivors or each.error for each in reaped):
        raise click.exceptions.Exit(EXIT_NODE)


def _where(
    run: str | None, cluster: str | None, nodes: str | None, runs: Path
) -> tuple[str | None, Sequence[NodeSpec]]:
    """Returns the run's id, None for all runs, and the nodes to look at.

    A run of another machine is named by its whole id; its nodes are those of the manifest.
    """
    from launcher.core.paths import RUN_ID
    from launcher.errors import UsageError
    from launcher.store.runs import find_run

    known = None
    if run is not None:
        try:
            known = find_run(runs, run)
        except UsageError:
            if not RUN_ID.match(run):
                raise
    if known is not None and cluster is None and nodes is None:
        return known.run_id, known.nodes()
    spec = options.read_cluster(cluster, nodes)
    machines = (*spec.nodes, *spec.spares) if nodes is None else spec.nodes
    return (known.run_id if known is not None else run), machines


def _known(runs: Path) -> Mapping[str, KnownStanding]:
    from launcher.core.reaping import KnownStanding
    from launcher.store.runs import list_runs

    return {run.run_id: KnownStanding(run.has_ended, run.is_followed) for run in list_runs(runs)}
