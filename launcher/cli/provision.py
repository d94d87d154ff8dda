"""`flowlaunch provision`: the OneFlow runtime on every node."""

from __future__ import annotations

import click

from launcher.cli import options


@click.command("provision", epilog="Example: flowlaunch provision -c cluster.yaml")
@options.cluster_option
@options.nodes_option
def command(cluster: str | None, nodes: str | None) -> None:
    """Install the OneFlow runtime on every node that lacks it.

    It goes to a virtual environment of flowlaunch's own, below the cache directory there; a
    second call finds nothing to do. Nodes whose python is a path are left alone.
    """
    from launcher.cli import render
    from launcher.cli.progress import RuntimeProgressView
    from launcher.errors import EXIT_NODE
    from launcher.run.provision import provision

    spec = options.read_cluster(cluster, nodes)
    with options.TransportPool() as transports, RuntimeProgressView() as view:
        results = provision(spec.nodes, transports(), view.on_progress)
    for result in results:
        if result.error is not None:
            render.error(result.error)
        else:
            words = "built" if result.built else "nothing to do"
            render.notice(f"{result.node}: {words}, {result.python}")
    if any(result.error for result in results):
        raise click.exceptions.Exit(EXIT_NODE)
