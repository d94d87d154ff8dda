"""What a run's files say of how it goes: the events, the newest report, the checkpoints here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.core.paths import RunPaths
from launcher.store.run_record import store_error

# The end of metrics.jsonl that is searched for the newest report.
_TAIL_BYTES = 256 * 1024


def last_metrics(paths: RunPaths) -> dict[str, Any] | None:
    """Returns rank 0's newest report, or anybody's where rank 0 made none lately."""
    newest: dict[str, Any] | None = None
    for line in reversed(_tail(Path(paths.metrics)).split(b"\n")):
        report = _object(line)
        if report is not None and report.get("rank") == 0:
            return report
        newest = newest or report
    return newest


def workers(paths: RunPaths, recorded: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Returns how each worker stands: as run.json had it last, and what has happened since.

    Args:
        paths: the run's files.
        recorded: the workers of run.json.

    Raises:
        StoreError: events.jsonl cannot be read.
    """
    found = {int(rank): dict(fields) for rank, fields in recorded.items()}
    for event in events(paths):
        worker = found.setdefault(event["rank"], {}) if _is_of_worker(event) else None
        if worker is None:
            continue
        worker["node"] = event.get("node", worker.get("node"))
        if event["event"] == "worker_started":
            worker.update(state="started", exit_code=None, signal=0)
        elif event["event"] == "worker_reported":
            worker["state"] = event["phase"]
        else:
            worker.update(state="exited", exit_code=event["exit_code"], signal=event["signal"])
    return dict(sorted(found.items()))


def _is_of_worker(event: Mapping[str, Any]) -> bool:
    kinds = ("worker_started", "worker_reported", "worker_exited")
    return event.get("event") in kinds and isinstance(event.get("rank"), int)


def events(paths: RunPaths) -> Iterator[dict[str, Any]]:
    """Yields the events of a run; a torn line at the end is left out.

    Raises:
        StoreError: events.jsonl cannot be read.
    """
    try:
        with Path(paths.events).open("rb") as file:
            for line in file:
                event = _object(line)
                if event is not None:
                    yield event
    except OSError as error:
        raise store_error(error, Path(paths.events)) from None


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read()
    except OSError:
        return b""


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
