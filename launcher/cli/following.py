"""What `run` and `attach` have in common: the view that fits, and the last words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.core.state import RunState
    from launcher.run.attempts import Undertaking
    from launcher.run.bringup import Transports
    from launcher.run.following import Ending, Options
    from launcher.store.run_record import RunRecord

# As a shell shows a program that wrote to a pipe which nobody reads.
EXIT_PIPE = 141


def follow(
    work: Undertaking,
    record: RunRecord,
    transports: Transports,
    how: Options,
    as_json: bool,
    taken_up: RunState | None = None,
    *,
    quiet_output: bool = False,
) -> Ending:
    """Runs the session with the view that fits where the output goes.

    With `quiet_output`, the workers' lines are left to the files.
    """
    from launcher.cli.view import open_view
    from launcher.run.session import Session

    nodes = {rank.rank: rank.node for rank in work.plan.ranks}
    view = open_view(
        nodes,
        as_json=as_json or quiet_output,
        file_of=lambda rank, stream: str(record.paths.log(nodes[rank], rank, stream)),
        title=record.run_id,
    )
    if as_json:
        record.echo = view.on_event_line
    try:
        ending = Session(work, record, transports, view, how, taken_up).run()
    finally:
        view.close()
    if view.is_gone:
        raise click.exceptions.Exit(EXIT_PIPE)
    return ending


def leave(ending: Ending, top: Path) -> NoReturn:
    """Prints how it ended and ends with its exit code."""
    from launcher.cli import render

    if ending.is_let_go:
        render.let_go(top)
    else:
        render.ending(ending, top)
    raise click.exceptions.Exit(ending.exit_code)
