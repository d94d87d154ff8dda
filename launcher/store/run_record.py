"""A run's directory on this machine: made, written, read."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.core import paths
from launcher.errors import StoreError, UsageError
from launcher.store.atomic import drop_torn_line, replace_file, replace_json, write_whole

if TYPE_CHECKING:
    from launcher.store.runs import KnownRun


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
        self._lock = _lock(Path(self.paths.lock))
        drop_torn_line(Path(self.paths.events))
        self._events = Path(self.paths.events).open("ab", buffering=0)  # noqa: SIM115 - until close

    @classmethod
    def reopen(cls, run: KnownRun) -> RunRecord:
        """Opens the record of a run in order to follow it further.

        Raises:
            UsageError: another launcher follows the run.
            StoreError: the directory cannot be written.
        """
        try:
            record = cls(run.top)
            drop_torn_line(Path(record.paths.metrics))
            record._standing.update(run.record)
            record.update(**_follower())
        except BlockingIOError:
            raise UsageError(
                f"run {run.run_id} is followed by another launcher, {_named_follower(run.record)}",
                hint="look at it with `flowlaunch logs -f`; one launcher at a time follows a run",
            ) from None
        except OSError as error:
            raise store_error(error, run.top) from None
        return record

    def event_lines(self) -> list[bytes]:
        """Returns the lines of events.jsonl so far."""
        return Path(self.paths.events).read_bytes().splitlines()

    def replace_plan(self, plan: dict[str, object]) -> None:
        """Keeps the plan of a later attempt.

        Raises:
            StoreError: the disk is full, or the directory is gone.
        """
        try:
            replace_json(Path(self.paths.plan), plan)
        except OSError as error:
            raise store_error(error, self.top) from None

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
        # Those who only read runs need none of it, and it takes its time.
        import secrets

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
            record.update(
                id=top.name,
                job=job,
                started=time.time(),
                state="preparing",
                attempt=0,
                restarts=[],
                **_follower(),
                **about,
            )
        except OSError as error:
            raise store_error(error, runs) from None
        return record

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.paths.run_id

    def keep_manifest(self, manifest: Path | None) -> None:
        """Keeps the manifest as it is now, beside the plan that came of it.

        Raises:
            StoreError: the disk is full, or the manifest is gone.
        """
        if manifest is None:
            return
        try:
            replace_file(Path(self.paths.manifest), manifest.read_bytes())
        except OSError as error:
            raise store_error(error, self.top) from None

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
        os.close(self._lock)


def _lock(path: Path) -> int:
    """Returns a descriptor that locks a run for as long as it is open.

    Raises:
        BlockingIOError: another process has the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _follower() -> dict[str, object]:
    """Returns what run.json says of the launcher that follows the run."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _named_follower(record: Mapping[str, Any]) -> str:
    return f"process {record.get('pid', '?')} on {record.get('host', '?')}"


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
