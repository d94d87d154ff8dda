"""`flowlaunch check`: every node, tried the way a run will use it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from launcher.cli import options


@click.command("check", epilog="Example: flowlaunch check -c cluster.yaml --data /data/imagenet")
@options.cluster_option
@options.nodes_option
@click.option(
    "--data",
    multiple=True,
    metavar="PATH",
    help="This path must hold the same on every node (repeatable): sizes and sampled blocks.",
)
@click.option("--full-hash", is_flag=True, help="With --data: read every byte.")
@click.option("--json", "as_json", is_flag=True, help="Everything that was found out, as JSON.")
def command(
    cluster: str | None,
    nodes: str | None,
    data: tuple[str, ...],
    full_hash: bool,
    as_json: bool,
) -> None:
    """Try every node the way a run will use it.

    Logs in to all nodes at once, looks at Python, OneFlow, GPUs, disk, memory, limits, clock and
    leftovers, compares what should be equal, and has every node dial all others on the ports and
    addresses that OneFlow will use. Each finding says how to mend it. Nothing is left on a node.

    The exit code is 0 where a run can use every node (warnings do not count), else 69.
    """
    import dataclasses

    from launcher.cli import check_view, render
    from launcher.core.findings import find, unusable
    from launcher.errors import EXIT_NODE
    from launcher.run.check import Questions, check_cluster

    if "" in data:
        raise click.UsageError("--data needs a path, and is given an empty one")
    if full_hash and not data:
        raise click.UsageError("--full-hash is about the paths of --data; name one")
    spec = options.read_cluster(cluster, nodes)
    if nodes is None:
        # A spare that turns out to be useless when it is needed is none.
        spec = dataclasses.replace(spec, nodes=(*spec.nodes, *spec.spares))
    questions = Questions(data=tuple(map(_absolute, data)), full_hash=full_hash)
    started = time.monotonic()
    with options.TransportPool() as transports, check_view.Waiting() as waiting:
        survey = check_cluster(spec, transports(), questions, waiting.on_progress)
    findings, elapsed_s = find(survey), time.monotonic() - started
    if as_json:
        render.json_value(check_view.as_json(survey, findings, elapsed_s))
    else:
        check_view.show(spec, survey, findings, elapsed_s)
    if unusable(findings):
        raise click.exceptions.Exit(EXIT_NODE)


def _absolute(path: str) -> str:
    """Returns a path as `run` would give it to a job: from here, except a home directory."""
    return path if path.startswith("~") else str(Path.cwd() / path)
