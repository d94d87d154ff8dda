"""`flowlaunch provision`: the OneFlow runtime on every node."""

from __future__ import annotations

import click

from launcher.cli import options


@click.command("provision", epilog="Example: flowlaunch provision -c cluster.yaml --offline")
@options.cluster_option
@options.nodes_option
@click.option(
    "--python",
    "interpreter",
    metavar="PATH",
    default="",
    help="Use the nodes' own Python: as it is where it has OneFlow, else to build on.",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Download to this machine and send it on, for nodes that reach no index.",
)
@click.option("--remove", is_flag=True, help="Remove what provision built.")
def command(
    cluster: str | None, nodes: str | None, interpreter: str, offline: bool, remove: bool
) -> None:
    """Install the OneFlow runtime on every node that lacks it.

    It goes to a virtual environment of flowlaunch's own, below the cache directory there, is
    pinned by hashes, and counts only once it has imported OneFlow and computed. A second call
    finds nothing to do, and one that was broken off goes on where it was. Nodes whose python is a
    path are only looked at.
    """
    from launcher.cli import check_view, render
    from launcher.cli.progress import RuntimeProgressView
    from launcher.errors import EXIT_NODE
    from launcher.run import provision

    if remove and (interpreter or offline):
        raise click.UsageError("--remove goes without --python and --offline")
    spec = options.read_cluster(cluster, nodes)
    all_nodes = (*spec.nodes, *spec.spares) if nodes is None else spec.nodes
    with options.TransportPool() as transports, RuntimeProgressView() as view:
        if remove:
            results = provision.remove(all_nodes, transports())
        else:
            way = provision.Way(interpreter, offline)
            results = provision.provision(all_nodes, transports(), view.on_progress, way)
    for result in results:
        if result.error is not None:
            render.error(result.error)
        elif remove:
            render.notice(f"{result.node}: {'removed' if result.built else 'nothing to do'}")
        else:
            words = "built" if result.built else "nothing to do"
            render.notice(f"{result.node}: {words}, {result.python}")
    if not remove:
        check_view.show_findings(provision.differences(all_nodes, results))
        _advise(interpreter, [result.python for result in results if not result.built])
    if any(result.error for result in results):
        raise click.exceptions.Exit(EXIT_NODE)


def _advise(interpreter: str, found: list[str]) -> None:
    """Says what the manifest must name where the nodes' own python has OneFlow."""
    from launcher.cli import render

    if interpreter and interpreter in found:
        render.notice(f'it has OneFlow; write "python: {interpreter}" into the manifest to use it')
