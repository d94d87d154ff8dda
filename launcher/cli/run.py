"""`flowlaunch run`: from a command line to a run's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.core.model import ClusterSpec
    from launcher.run.attempts import Undertaking
    from launcher.run.planning import Wish
    from launcher.store.run_record import RunRecord


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
@options.grace_option
@options.lease_option
@click.option(
    "--start-timeout",
    type=click.FloatRange(min=0),
    default=120.0,
    metavar="S",
    help="Stop where a rank waits for the others for longer than this, seconds (120).",
)
@click.option("-d", "--detach", is_flag=True, help="Return once every worker has started.")
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="After a failure, start again from the newest checkpoint, at most N times (0).",
)
@click.option(
    "--min-nodes",
    type=click.IntRange(min=1),
    metavar="M",
    help="Go on without nodes that cannot be used, as long as M are left (all).",
)
@click.option(
    "--no-check", is_flag=True, help="Do not try first whether the nodes reach each other."
)
@click.option(
    "--collect-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MB",
    help="Checkpoints and collected files come at most so many MB a second (no bound).",
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
    start_timeout: float,
    detach: bool,
    max_restarts: int,
    min_nodes: int | None,
    no_check: bool,
    collect_rate: float | None,
    runs_dir: str | None,
    as_json: bool,
) -> None:
    """Launch JOB on the cluster and follow it to its end.

    JOB is a .py file; what stands behind -- is its own. The exit code is 0 where every worker
    ended with 0 and every log and checkpoint is here, else that of the worker that failed first.
    """
    from launcher.cli import following
    from launcher.core.state import RestartPolicy
    from launcher.run.following import Options
    from launcher.run.planning import plan_run, this_machine
    from launcher.store.run_record import runs_directory

    if detach and max_restarts:
        raise click.UsageError("--max-restarts needs a launcher that stays: leave out -d")
    if detach and hang_timeout is not None:
        raise click.UsageError("--hang-timeout needs a launcher that stays: leave out -d")
    wish = words.wish(runs_dir)
    spec = options.read_cluster(words.cluster, words.nodes)
    with options.TransportPool() as transports:
        if wish.dry_run:
            _show_intended(wish, spec, transports, to_stderr=as_json)
            spec = this_machine()
        work = plan_run(wish, spec, transports)
        if min_nodes is not None and min_nodes > len(work.plan.nodes):
            count = len(work.plan.nodes)
            raise click.UsageError(f"--min-nodes {min_nodes}: there are {count} nodes in all")
        how = Options(
            grace,
            lease,
            timeout,
            hang_timeout,
            start_limit_s=start_timeout,
            detach=detach,
            is_detached=detach,
            check=not no_check,
            policy=RestartPolicy(max_restarts, min_nodes, work.spares, work.slots),
            collect_bytes_per_s=collect_rate * 1e6 if collect_rate else None,
        )
        record = _make_record(work, runs_directory(runs_dir), wish, name, detached=detach)
        record.keep_manifest(options.manifest_file(words.cluster))
        try:
            ending = following.follow(work, record, transports(), how, as_json)
        finally:
            record.close()
    following.leave(ending, record.top)


def _show_intended(
    wish: Wish, spec: ClusterSpec, transports: options.TransportPool, *, to_stderr: bool
) -> None:
    """Prints the plan that a dry run stands for."""
    import dataclasses

    from launcher.cli import render
    from launcher.run.planning import plan_run

    for_real = dataclasses.replace(wish, dry_run=False)
    work = plan_run(for_real, spec, transports)
    render.plan(work.plan, work.folder, hidden=tuple(wish.env), to_stderr=to_stderr)
    render.notice("\ndry run: one worker on this machine, a few steps\n")


def _make_record(
    work: Undertaking, runs: Path, wish: Wish, name: str | None, *, detached: bool
) -> RunRecord:
    from launcher.core.plan import plan_to_json
    from launcher.store.run_record import RunRecord

    plan = work.plan
    return RunRecord.create(
        runs,
        plan.job.name,
        plan_to_json(plan, hidden=work.hidden),
        name=name,
        cluster=plan.cluster,
        world_size=plan.world_size,
        dry_run=wish.dry_run,
        detached=detached,
        resumed_from={"run": plan.resume.run, "step": plan.resume.step} if plan.resume else None,
    )
