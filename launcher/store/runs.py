"""The runs that are kept on this machine: all of them, or the one that is meant."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from launcher.core.model import NodeSpec
from launcher.core.paths import RunPaths
from launcher.core.plan import nodes_from_json
from launcher.errors import StoreError, UsageError
from launcher.store.run_record import store_error

LAST = "last"
# Of the runs that a word fits, an error names so many.
_MAX_NAMED = 8


@dataclass(frozen=True)
class KnownRun:
    """A run's directory, and how it stood when it was looked at.

    Attributes:
        top: the run's directory.
        record: what run.json says; empty where that cannot be read.
        problem: why run.json cannot be read, "" where it can.
        is_followed: a launcher holds the run: it goes on, and somebody looks after it.
    """

    top: Path
    record: Mapping[str, Any]
    problem: str = ""
    is_followed: bool = False

    @cached_property
    def paths(self) -> RunPaths:
        """The names of the run's files."""
        return RunPaths(self.top)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.top.name

    @property
    def name(self) -> str:
        """What `--name` called it, "" where it was given none."""
        return str(self.record.get("name") or "")

    @property
    def started(self) -> float:
        """When it began, by this machine's clock; 0 where nobody knows."""
        started = self.record.get("started")
        return float(started) if isinstance(started, int | float) else 0.0

    @property
    def has_ended(self) -> bool:
        """Whether its end is written down."""
        return self.record.get("state") == "ended"

    @property
    def is_detached(self) -> bool:
        """Whether it was meant to go on without a launcher."""
        return bool(self.record.get("detached"))

    def plan(self) -> dict[str, Any]:
        """Returns the plan it was started from.

        Raises:
            StoreError: it is missing or damaged.
        """
        return _read_object(Path(self.paths.plan))

    def nodes(self) -> tuple[NodeSpec, ...]:
        """Returns the nodes of the plan.

        Raises:
            StoreError: the plan is missing or damaged.
        """
        try:
            return nodes_from_json(self.plan())
        except ValueError as error:
            raise StoreError(str(error), where=str(self.paths.plan)) from None


def list_runs(runs: Path) -> list[KnownRun]:
    """Returns every run of a directory, newest first; damaged ones have a `problem`.

    Raises:
        StoreError: the directory cannot be read.
    """
    found = [_look_at(top) for top in _directories(runs)]
    return sorted(found, key=lambda run: (run.started, run.run_id), reverse=True)


def find_run(runs: Path, wanted: str) -> KnownRun:
    """Returns the run that a person means.

    Args:
        runs: the directory of all runs.
        wanted: an id, a unique prefix of one, a `--name` (the newest run of that name), "last",
            or the path of a run's directory.

    Raises:
        UsageError: there is no such run, or several are meant.
        StoreError: its run.json cannot be read.
    """
    if os.sep in wanted and (Path(wanted) / "run.json").is_file():
        return _readable(_look_at(Path(wanted)))
    known = list_runs(runs)
    if not known:
        raise UsageError(
            f"there are no runs in {runs}",
            hint="go where they were started, or name their directory with --runs-dir",
        )
    return _readable(_choose(known, wanted))


def is_followed(top: Path) -> bool:
    """Says whether a launcher holds a run.

    The lock goes with its process, however that ends: a killed launcher holds nothing.
    """
    try:
        with Path(RunPaths(top).lock).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # never followed, or not ours to look at
    return False


def _choose(known: Sequence[KnownRun], wanted: str) -> KnownRun:
    if wanted == LAST:
        return known[0]
    for fits in (_has_id, _has_name):
        exact = next((run for run in known if fits(run, wanted)), None)
        if exact is not None:
            return exact
    fitting = [run for run in known if wanted and run.run_id.startswith(wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(
            f"{wanted!r} is the beginning of {len(fitting)} runs: {_named(fitting)}",
            hint="write more of the id",
        )
    raise UsageError(
        f"there is no run {wanted!r}; there are {_named(known)}",
        hint="RUN is an id, the beginning of one, a --name, or `last`: see `flowlaunch ps`",
    )


def _has_id(run: KnownRun, wanted: str) -> bool:
    return run.run_id == wanted


def _has_name(run: KnownRun, wanted: str) -> bool:
    return wanted != "" and run.name == wanted


def _named(runs: Sequence[KnownRun]) -> str:
    names = ", ".join(run.run_id for run in runs[:_MAX_NAMED])
    more = len(runs) - _MAX_NAMED
    return f"{names} and {more} more" if more > 0 else names


def _readable(run: KnownRun) -> KnownRun:
    if run.problem:
        raise StoreError(
            run.problem,
            where=str(run.paths.record),
            hint="events.jsonl beside it has everything that happened in the run",
        )
    return run


def _directories(runs: Path) -> Iterator[Path]:
    """Yields what look like runs: a directory that was just made has no run.json yet."""
    try:
        with os.scandir(runs) as entries:
            tops = [runs / entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise store_error(error, runs) from None
    yield from (top for top in tops if (top / "run.json").exists())


def _look_at(top: Path) -> KnownRun:
    # The lock first: a launcher that just let go of it has written the run's end before.
    followed = is_followed(top)
    try:
        return KnownRun(top, _read_object(Path(RunPaths(top).record)), is_followed=followed)
    except StoreError as error:
        return KnownRun(top, {"started": _mtime(top)}, error.message, followed)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise store_error(error, path) from None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"it is damaged: {error}", where=str(path)) from None
    if not isinstance(value, dict):
        raise StoreError("it is damaged: no JSON object", where=str(path))
    return value


def _mtime(top: Path) -> float:
    try:
        return top.stat().st_mtime
    except OSError:
        return 0.0
