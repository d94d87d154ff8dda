"""`flowlaunch checkpoints`: list, bring, prove, drop and hand out what runs have published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import options

if TYPE_CHECKING:
    from launcher.collect.checkpoints import Outcome


@click.group(
    "checkpoints",
    epilog="Example: flowlaunch checkpoints list last",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """List, bring, prove, drop and hand out a run's checkpoints."""


@command.command("list", epilog="Example: flowlaunch checkpoints list last --json")
@options.run_argument
@options.runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
def list_command(run: str, runs_dir: str | None, as_json: bool) -> None:
    """List the checkpoints of RUN: step, size, bytes of its own, where, metrics."""
    from launcher.cli import checkpoint_view, render

    rows = checkpoint_view.listed(options.known_run(run, runs_dir).paths)
    if as_json:
        render.json_value(rows)
    elif rows:
        checkpoint_view.show_list(rows)
    else:
        render.notice("the run has published no checkpoint")


@command.command("verify", epilog="Example: flowlaunch checkpoints verify last")
@options.run_argument
@options.runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="What is damaged, as JSON.")
def verify_command(run: str, runs_dir: str | None, as_json: bool) -> None:
    """Hash every byte of RUN's checkpoints and collected files again.

    The exit code is 0 where all are what was published, else 74, with each damaged file named.
    """
    from launcher.cli import checkpoint_view, render
    from launcher.errors import EXIT_DELIVERY

    proven = checkpoint_view.verify(options.known_run(run, runs_dir).paths, quiet=as_json)
    if as_json:
        render.json_value(proven.to_json())
    else:
        proven.show()
    if proven.damages:
        raise click.exceptions.Exit(EXIT_DELIVERY)


@command.command("pull", epilog="Example: flowlaunch checkpoints pull last")
@options.run_argument
@options.runs_dir_option
def pull_command(run: str, runs_dir: str | None) -> None:
    """Bring the checkpoints here that are still on RUN's nodes.

    The run may have ended, or have lost its launcher; what stayed on a node is found there. The
    exit code is 0 where everything is here, 74 where something could not come, and 69 where a node
    was not reached.
    """
    from launcher.cli import checkpoint_view
    from launcher.errors import EXIT_DELIVERY, EXIT_NODE, UsageError
    from launcher.run.pulling import pull

    known = options.known_run(run, runs_dir)
    if known.is_followed:
        raise UsageError(
            f"{known.run_id} is being followed: its checkpoints come here by themselves",
            hint="`flowlaunch checkpoints list` shows those that have",
        )
    with options.TransportPool() as transports:
        pulled = pull(known.paths, known.nodes(), transports(), _say_outcome)
    checkpoint_view.show_pulled(pulled)
    if any(checkpoint_view.is_failure(outcome) for outcome in pulled.outcomes):
        raise click.exceptions.Exit(EXIT_DELIVERY)
    if pulled.unreachable:
        raise click.exceptions.Exit(EXIT_NODE)


def _say_outcome(outcome: Outcome) -> None:
    from launcher.cli import checkpoint_view, render

    render.notice(checkpoint_view.outcome(outcome))


@command.command("prune", epilog="Example: flowlaunch checkpoints prune last --keep 3")
@options.run_argument
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Keep the newest N.")
@click.option(
    "--keep-every", type=click.IntRange(min=1), metavar="N", help="Keep each whose step N divides."
)
@click.option(
    "--keep-best", metavar="METRIC[:max]", help="Keep the one with the least (or greatest) METRIC."
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@options.runs_dir_option
def prune_command(
    run: str,
    keep: int | None,
    keep_every: int | None,
    keep_best: str | None,
    dry_run: bool,
    runs_dir: str | None,
) -> None:
    """Remove the checkpoints of RUN here that no rule keeps.

    One stays where any of the rules keeps it; the newest always does. Without a rule, those of the
    manifest that RUN was started with hold. What other runs share with it stays theirs.
    """
    from launcher.cli import checkpoint_view, render
    from launcher.core import retention
    from launcher.store import pruning

    known = options.known_run(run, runs_dir)
    policy = retention.policy_of(keep, keep_every, keep_best) or retention.planned(known.plan())
    going = pruning.superfluous(known.paths, policy)
    for directory in going:
        render.notice(f"{'would remove' if dry_run else 'removed'} {directory}")
        if not dry_run:
            pruning.remove(directory)
    render.notice(checkpoint_view.pruned(known.paths, len(going), dry_run=dry_run))


@command.command("export", epilog="Example: flowlaunch checkpoints export last@600 ./model")
@click.argument("checkpoint", metavar="RUN[@STEP]")
@click.argument("directory", metavar="DIR", type=click.Path())
@options.runs_dir_option
def export_command(checkpoint: str, directory: str, runs_dir: str | None) -> None:
    """Copy the newest checkpoint of RUN, or that of STEP, to DIR, as `flow.load` reads it.

    Every byte is proven on the way. DIR must not exist, or be empty.
    """
    from pathlib import Path

    from launcher.cli import render
    from launcher.cli.summary import counted, size
    from launcher.store.checkpoints import export, resume_from
    from launcher.store.run_record import runs_directory

    source = resume_from(runs_directory(runs_dir), checkpoint)
    exported = export(Path(source.directory), Path(directory))
    files = counted(len(exported.published.files), "file")
    total = size(exported.published.total_bytes)
    render.notice(f"step {exported.step}: {files}, {total}, verified, in {directory}")
