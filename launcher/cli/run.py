"""`flowlaunch run`: from a command line to a run's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.core.model import ClusterSpec, LaunchPlan
    from launcher.run.following import Ending, Options
    from launcher.run.planning import Wish
    from launcher.store.job_folder import JobFolder
    from launcher.store.run_record import RunRecord

# As a shell shows a program that wrote to a pipe which nobody reads.
EXIT_PIPE = 141


@click.command(
    "run",
    epilog="Example: flowlaunch run jobs/alexnet.py --cluster cluster.yaml -- -i 20",
)
@options.job_options
@click.option("--name", metavar="NAME", help="A name to call the run by.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Stop after S seconds.")
@click.option(
    "--hang-timeout",
    type=click.FloatRange(min=1),
    metavar="S",
    help="Stop where no rank is heard of for S seconds, and show where each of them is (never).",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=5.0,
    metavar="S",
    help="From TERM to KILL, seconds (5).",
)
@click.option(
    "--lease",
    type=click.FloatRange(min=15),
    default=60.0,
    metavar="S",
    help="How long workers live on without this launcher, seconds (60).",
)
@click.option(
    "--no-check", is_flag=True, help="Do not try first whether the nodes reach each other."
)
@options.runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="Events on stdout, one JSON object a line.")
def command(
    words: options.JobWords,
    name: str | None,
    timeout: float | None,
    hang_timeout: float | None,
    grace: float,
    lease: float,
    no_check: bool,
    runs_dir: str | None,
    as_json: bool,
) -> None:
    """Launch JOB on the cluster and follow it to its end.

    JOB is a .py file; what stands behind -- is its own. The exit code is 0 where every worker
    ended with 0 and every log and checkpoint is here, else that of the worker that failed first.
    """
    from launcher.cli import render
    from launcher.run.following import Options
    from launcher.run.planning import plan_run, this_machine
    from launcher.store.run_record import runs_directory

    wish = words.wish(runs_dir)
    spec = options.read_cluster(words.cluster, words.nodes)
    with options.TransportPool() as transports:
        if wish.dry_run:
            _show_intended(wish, spec, transports, to_stderr=as_json)
            spec = this_machine()
        plan, folder = plan_run(wish, spec, transports)
        record = _make_record(plan, runs_directory(runs_dir), wish, name)
        try:
            how = Options(grace, lease, timeout, hang_timeout, check=not no_check)
            ending = _follow(plan, folder, record, transports, how, as_json)
        finally:
            record.close()
    render.ending(ending, record.top)
    raise click.exceptions.Exit(ending.exit_code)


def _show_intended(
    wish: Wish, spec: ClusterSpec, transports: options.TransportPool, *, to_stderr: bool
) -> None:
    """Prints the plan that a dry run stands for."""
    import dataclasses

    from launcher.cli import render
    from launcher.run.planning import plan_run

    for_real = dataclasses.replace(wish, dry_run=False)
    plan, folder = plan_run(for_real, spec, transports)
    render.plan(plan, folder, hidden=tuple(wish.env), to_stderr=to_stderr)
    render.notice("\ndry run: one worker on this machine, a few steps\n")


def _make_record(plan: LaunchPlan, runs: Path, wish: Wish, name: str | None) -> RunRecord:
    from launcher.core.plan import plan_to_json
    from launcher.store.run_record import RunRecord

    return RunRecord.create(
        runs,
        plan.job.name,
        plan_to_json(plan, hidden=tuple(wish.env)),
        name=name,
        cluster=plan.cluster,
        world_size=plan.world_size,
        dry_run=wish.dry_run,
        resumed_from={"run": plan.resume.run, "step": plan.resume.step} if plan.resume else None,
    )


def _follow(
    plan: LaunchPlan,
    folder: JobFolder,
    record: RunRecord,
    transports: options.TransportPool,
    how: Options,
    as_json: bool,
) -> Ending:
    """Runs the session with the view that fits where the output goes."""
    from launcher.cli.view import open_view
    from launcher.run.session import Session

    nodes = {rank.rank: rank.node for rank in plan.ranks}
    view = open_view(
        nodes,
        as_json=as_json,
        file_of=lambda rank, stream: str(record.paths.log(nodes[rank], rank, stream)),
        title=record.run_id,
    )
    if as_json:
        record.echo = view.on_event_line
    try:
        ending = Session(plan, folder, record, transports(), view, how).run()
    finally:
        view.close()
    if view.is_gone:
        raise click.exceptions.Exit(EXIT_PIPE)
    return ending
