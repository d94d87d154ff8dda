"""How the checkpoints of runs are shown."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.cli import render
from launcher.cli.lines import harmless
from launcher.cli.summary import counted, size, value
from launcher.collect.checkpoints import Dropped, NotStored, Outcome, Stored
from launcher.collect.gathered import Gathered, NotGathered
from launcher.core.paths import RunPaths
from launcher.errors import StoreError
from launcher.run.pulling import Pulled
from launcher.store import run_history
from launcher.store.checkpoints import read_checkpoint, steps_of
from launcher.store.verifying import Damage, expected_collected, expected_in
from launcher.store.verifying import verify as prove

_MAX_NAMED = 20


def listed(paths: RunPaths) -> list[dict[str, Any]]:
    """Returns the rows of `checkpoints list` as JSON values, by step.

    `unique_bytes` is what no earlier checkpoint of the run has.
    """
    known = steps_of(Path(paths.top))
    nodes = _holders(paths)
    seen: set[str] = set()
    rows = []
    for step in sorted({*known, *nodes}):
        row: dict[str, Any] = {"step": step, "nodes": sorted(nodes.get(step, ()))}
        row |= _here(known[step], seen) if step in known else {"where": "nodes"}
        rows.append(row)
    return rows


def _holders(paths: RunPaths) -> dict[int, set[str]]:
    """Returns the nodes on which each step was published."""
    found: dict[int, set[str]] = {}
    for event in run_history.events(paths):
        if event.get("event") == "checkpoint_published" and isinstance(event.get("step"), int):
            found.setdefault(event["step"], set()).add(str(event.get("node")))
    return found


def _here(directory: Path, seen: set[str]) -> dict[str, Any]:
    try:
        published = read_checkpoint(directory).published
    except StoreError as error:
        return {"where": "here", "problem": str(error)}
    own = {file.sha256: file.bytes for file in published.files if file.sha256 not in seen}
    seen.update(own)
    return {
        "where": "here",
        "directory": str(directory),
        "files": len(published.files),
        "bytes": published.total_bytes,
        "unique_bytes": sum(own.values()),
        "meta": published.meta,
    }


def show_list(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the rows as a table."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("step", "size", "its own", "where", "metrics", box=None)
    for row in rows:
        meta = "  ".join(f"{name} {value(number)}" for name, number in row.get("meta", {}).items())
        sizes = [size(row[key]) if key in row else "-" for key in ("bytes", "unique_bytes")]
        where = row.get("problem") or (
            "here" if row["where"] == "here" else f"on {', '.join(row['nodes'])}"
        )
        table.add_row(str(row["step"]), *sizes, escape(harmless(where)), escape(harmless(meta)))
    render.console().print(table)


@dataclass(frozen=True)
class Proven:
    """What came of a verification."""

    checkpoints: int
    files: int
    bytes: int
    damages: tuple[Damage, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        damaged = [{"path": str(one.path), "problem": one.problem} for one in self.damages]
        return {
            "checkpoints": self.checkpoints,
            "files": self.files,
            "bytes": self.bytes,
            "damaged": damaged,
        }

    def show(self) -> None:
        """Prints what is damaged, and how much is whole."""
        for one in self.damages[:_MAX_NAMED]:
            render.notice(harmless(f"{one.path}: {one.problem}"))
        if len(self.damages) > _MAX_NAMED:
            render.notice(f"… {len(self.damages) - _MAX_NAMED} more")
        what = f"{counted(self.checkpoints, 'checkpoint')}, {counted(self.files, 'file')}"
        how = f"{len(self.damages)} damaged" if self.damages else "all whole"
        render.notice(f"{what}, {size(self.bytes)}: {how}")


def verify(paths: RunPaths, *, quiet: bool) -> Proven:
    """Hashes everything of a run that was published or collected, with a bar on a terminal."""
    directories = list(steps_of(Path(paths.top)).values())
    expected, damages = expected_collected(paths), []
    for directory in directories:
        files, wrong = expected_in(directory)
        expected += files
        damages += wrong
    total = sum(one.file.bytes for one in expected)
    with _progress(total, quiet=quiet) as advance:
        damages += prove(expected, advance)
    return Proven(len(directories), len(expected), total, tuple(damages))


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    if quiet or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    lock, waiting = threading.Lock(), [0]
    bar = Progress(
        "verifying", BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    task = bar.add_task("", total=total)

    def advance(count: int) -> None:
        # A bar that is drawn for each block would take longer than the hashing.
        with lock:
            waiting[0] += count
            if waiting[0] < 16 << 20:
                return
            count, waiting[0] = waiting[0], 0
        bar.advance(task, count)

    with bar:
        yield advance


def outcome(one: Outcome) -> str:
    """Returns what came of a checkpoint, in one line."""
    if isinstance(one, Stored):
        return f"checkpoint of step {one.step} is here, {size(one.bytes)}"
    if isinstance(one, Gathered):
        return f"{one.node}: {one.path} is here, {size(one.bytes)}"
    if isinstance(one, Dropped):
        return f"checkpoint of step {one.step} is dropped"
    return harmless(one.problem)


def is_failure(one: Outcome) -> bool:
    """Says whether something could not be brought here."""
    return isinstance(one, NotStored | NotGathered)


def show_pulled(pulled: Pulled) -> None:
    """Prints what a pull has brought."""
    for node, why in pulled.unreachable.items():
        render.notice(harmless(f"{node}: {why}"))
    came = sum(isinstance(one, Stored) for one in pulled.outcomes)
    found = counted(pulled.found, "checkpoint")
    render.notice(f"{found} on the nodes, {came} of them brought here and verified")


def pruned(paths: RunPaths, gone: int, *, dry_run: bool) -> str:
    """Returns what is left after a prune, in one line."""
    left = len(steps_of(Path(paths.top))) - (gone if dry_run else 0)
    would = "would be " if dry_run else ""
    return f"{counted(gone, 'checkpoint')} {would}removed, {left} left"
