"""`flowlaunch logs`: what the workers said, during the run and after it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from launcher.cli import options
from launcher.cli.following import EXIT_PIPE

if TYPE_CHECKING:
    from launcher.store.runs import KnownRun

# An agent that has only files to send has no worker that a lease would protect.
SYNC_LEASE_S = 60.0


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
@click.option("--sync", is_flag=True, help="First bring here what is missing and nodes still keep.")
@options.runs_dir_option
def command(run: str, runs_dir: str | None, sync: bool, **wanted: Any) -> None:
    """Read or follow the logs of RUN: an id, the beginning of one, a --name, or `last`.

    Without --merge or --fold, one stream after the other, by rank. On a live run, also while
    another launcher follows it. With --sync, the exit code is 74 where something is still missing.
    """
    from launcher.cli.log_view import LogView
    from launcher.cli.log_wish import parse_wish
    from launcher.cli.printing import let_go_of

    options.allow_many_files()
    wish = parse_wish(**wanted, groups=_groups)
    known = options.known_run(run, runs_dir)
    missing = _sync(known) if sync else ()
    view = LogView(known, wish)
    try:
        view.show()
    except BrokenPipeError:
        let_go_of(sys.stdout)
        raise click.exceptions.Exit(EXIT_PIPE) from None
    finally:
        view.close()
    if missing:
        _tell_missing(missing)


def _sync(known: KnownRun) -> tuple[str, ...]:
    """Tries again to bring an ended run's missing bytes home; returns what still is missing."""
    from launcher.cli.attach import take_up
    from launcher.errors import UsageError

    if not known.has_ended:
        raise UsageError(
            f"run {known.run_id} has not ended: gaps close while a launcher follows it",
            hint=f"`flowlaunch attach {known.run_id}` follows it, where none does",
        )
    if not known.record.get("missing"):
        return ()
    return take_up(known, SYNC_LEASE_S, quiet_output=True).state.missing


def _tell_missing(missing: Sequence[str]) -> NoReturn:
    from launcher.cli import render
    from launcher.cli.lines import harmless
    from launcher.errors import EXIT_DELIVERY

    for line in missing:
        render.notice(f"missing: {harmless(line)}")
    raise click.exceptions.Exit(EXIT_DELIVERY)


def _groups() -> Mapping[str, tuple[str, ...]]:
    return options.read_cluster(None, None).groups
