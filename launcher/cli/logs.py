"""`flowlaunch logs`: what the workers said, during the run and after it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from launcher.cli import options
from launcher.cli.following import EXIT_PIPE


@click.command("logs", epilog="Example: flowlaunch logs last -f --rank 0,2-5 --tail 20")
@options.run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--rank", metavar="SET", help="Only these ranks: '0,2-5'.")
@click.option("--node", metavar="SET", help="Only these nodes: 'gpu[01-04]', 'a,b', '@group'.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this one (both).")
@click.option(
    "--tail",
    type=click.IntRange(min=0),
    metavar="N",
    help="The last N lines of each stream; with --merge or --fold, of all together.",
)
@click.option("--grep", metavar="RE", help="Only lines with a match; bytes are compared.")
@click.option(
    "--since", metavar="T", help="What came since: '10m', '14:30', '2026-01-31T14:30', seconds."
)
@click.option("--merge", is_flag=True, help="All streams in one, by the time of each line.")
@click.option("--fold", is_flag=True, help="Merge, and show equal lines of several ranks as one.")
@click.option("--raw", is_flag=True, help="The bytes as they are, which a terminal obeys.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@options.runs_dir_option
def command(run: str, runs_dir: str | None, **wanted: Any) -> None:
    """Read or follow the logs of RUN: an id, the beginning of one, a --name, or `last`.

    Without --merge or --fold, one stream after the other, by rank. On a live run, also while
    another launcher follows it.
    """
    from launcher.cli.log_view import LogView, parse_wish
    from launcher.cli.printing import let_go_of

    options.allow_many_files()
    wish = parse_wish(**wanted, groups=_groups)
    view = LogView(options.known_run(run, runs_dir), wish)
    try:
        view.show()
    except BrokenPipeError:
        let_go_of(sys.stdout)
        raise click.exceptions.Exit(EXIT_PIPE) from None
    finally:
        view.close()


def _groups() -> Mapping[str, tuple[str, ...]]:
    return options.read_cluster(None, None).groups
