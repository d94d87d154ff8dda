"""`flowlaunch plan`: what `run` would do."""

from __future__ import annotations

import click

from launcher.cli import options


@click.command(
    "plan",
    epilog="Example: flowlaunch plan jobs/lenet.py -c cluster.yaml -- --epochs 3",
)
@options.job_options
@options.runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="The whole plan as JSON.")
def command(
    words: options.JobWords,
    runs_dir: str | None,
    as_json: bool,
) -> None:
    """Print what `run` would do, and do nothing.

    Shows the machine list, ctrl_port, the table of ranks, and the environment and command of every
    worker. No node is contacted, except where slots are "gpus".
    """
    from launcher.cli import render
    from launcher.core.plan import plan_to_json
    from launcher.run.planning import plan_run

    wish = words.wish(runs_dir)
    spec = options.read_cluster(words.cluster, words.nodes)
    with options.TransportPool() as transports:
        work = plan_run(wish, spec, transports)
    if as_json:
        render.json_value(plan_to_json(work.plan, hidden=work.hidden))
    else:
        render.plan(work.plan, work.folder, hidden=tuple(wish.env))
