"""`flowlaunch attach`: follow a run that goes on without a launcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import options

if TYPE_CHECKING:
    from launcher.run.following import Ending
    from launcher.store.runs import KnownRun


@click.command("attach", epilog="Example: flowlaunch attach last")
@options.run_argument
@options.lease_option
@options.runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="Events on stdout, one JSON object a line.")
def command(run: str, lease: float, runs_dir: str | None, as_json: bool) -> None:
    """Take over following RUN: a detached one, or one whose launcher died.

    Nothing that was logged or published in between is lost. The exit code is that of `run`. Ctrl-C
    lets go of a detached run, which goes on; it stops one that is not detached. What an ended run
    could not bring home is tried again.
    """
    from launcher.cli import following

    known = options.known_run(run, runs_dir)
    if known.has_ended and not known.record.get("missing"):
        _show_ended(known)
    following.leave(take_up(known, lease, as_json), known.top)


def _show_ended(known: KnownRun) -> None:
    from launcher.cli import render

    code = int(known.record.get("exit_code") or 0)
    render.notice(f"run {known.run_id} has ended, with exit code {code}: `flowlaunch status` tells")
    raise click.exceptions.Exit(code)


def take_up(
    known: KnownRun, lease: float, as_json: bool = False, *, quiet_output: bool = False
) -> Ending:
    """Follows a run to its end, or tries again what an ended one could not bring home.

    With `quiet_output`, the workers' lines are left to the files.

    Raises:
        UsageError: another launcher follows it.
    """
    from launcher.cli import following
    from launcher.run.attaching import read_plan, stands, undertaking_of
    from launcher.run.following import Options
    from launcher.store.run_record import RunRecord

    plan = read_plan(known)
    record = RunRecord.reopen(known)
    try:
        how = Options(lease_s=lease, is_detached=known.is_detached)
        state = stands(record, plan)
        with options.TransportPool() as transports:
            work = undertaking_of(plan)
            return following.follow(
                work, record, transports(), how, as_json, state, quiet_output=quiet_output
            )
    finally:
        record.close()
