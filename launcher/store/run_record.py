"""A run's directory on this machine: made, written, read."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.core import paths
from launcher.errors import StoreError
from launcher.store.atomic import replace_json, write_whole


def runs_directory(option: str | None) -> Path:
    """Returns where runs are kept: the option, else $FLOWLAUNCH_RUNS, else ./runs."""
    return Path(option or os.environ.get("FLOWLAUNCH_RUNS") or "runs")


class RunRecord:
    """The events and the standing of one run.

    `events.jsonl` is the truth and only ever appended to; `run.json` is derived from it.

    Attributes:
        echo: is given every line of events.jsonl as it is written.
    """

    def __init__(self, top: Path) -> None:
        """Opens the record in a directory that is there."""
        self.paths = paths.RunPaths(top)
        self.top = top
        self.echo: Callable[[str], None] | None = None
        self._standing: dict[str, Any] = {}
        self._events = Path(self.paths.events).open("ab", buffering=0)  # noqa: SIM115 - until close

    @classmethod
    def create(cls, runs: Path, job: str, plan: dict[str, object], **about: object) -> RunRecord:
        """Makes the directory of a new run and writes its plan.

        Args:
            runs: the directory of all runs; made where it is missing.
            job: the job's name.
            plan: what `plan_to_json` gave.
            about: further keys of run.json.

        Raises:
            StoreError: the directory cannot be written.
        """
        date = time.strftime("%Y%m%d-%H%M%S")
        try:
            _make_home_of_runs(runs)
            while True:
                top = runs / paths.run_id(job, date, secrets.token_hex(2))
                try:
                    top.mkdir()
                    break
                except FileExistsError:
                    continue
            for name in ("logs", "checkpoints"):
                (top / name).mkdir()
            record = cls(top)
            replace_json(Path(record.paths.plan), plan)
            record.update(id=top.name, job=job, started=time.time(), state="preparing", **about)
        except OSError as error:
            raise store_error(error, runs) from None
        return record

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.paths.run_id

    def append(self, kind: str, **fields: object) -> None:
        """Writes one event.

        Raises:
            StoreError: the disk is full, or the directory is gone.
        """
        line = json.dumps({"time": round(time.time(), 6), "event": kind, **fields})
        try:
            write_whole(self._events, line.encode() + b"\n")
        except OSError as error:
            raise store_error(error, self.top) from None
        if self.echo is not None:
            self.echo(line)

    def update(self, **changes: object) -> None:
        """Changes how the run stands, in run.json.

        Raises:
            StoreError: the disk is full, or the directory is gone.
        """
        self._standing.update(changes)
        try:
            replace_json(Path(self.paths.record), self._standing)
        except OSError as error:
            raise store_error(error, self.top) from None

    def close(self) -> None:
        """Makes sure that the events are on the disk, and lets go of them."""
        os.fsync(self._events.fileno())
        self._events.close()


def _make_home_of_runs(runs: Path) -> None:
    """Makes the directory of all runs, and tells git that it belongs to no program.

    Else it would travel to every node with the job's folder, and change on its way there.
    """
    if not runs.is_dir():
        runs.mkdir(parents=True)
        (runs / ".gitignore").write_text("*\n")


def store_error(error: OSError, place: Path) -> StoreError:
    """Returns the words for a file of this machine that could not be read or written."""
    return StoreError(
        error.strerror or str(error),
        where=str(error.filename or place),
        hint="make room or mend the permissions there, or name another place with --runs-dir",
    )
