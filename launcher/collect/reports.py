"""What the workers report: metrics to a file, and how far each of them is."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from launcher.core.blame import Raised, read_raised
from launcher.core.state import WorkerPhase
from launcher.store.atomic import write_whole
from launcher.store.run_record import store_error

_PHASES = {"importing": WorkerPhase.IMPORTING, "joined": WorkerPhase.JOINED}
# A line that is longer than this is no report of ours.
MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Metrics:
    """One report: values of one rank at one step."""

    time: float
    rank: int
    step: int | None
    total: int | None
    values: dict[str, Any]


Report = Metrics | WorkerPhase | Raised


class ReportReader:
    """Takes the report streams' bytes and gives what they say."""

    def __init__(self, metrics_file: Path) -> None:
        self._path = metrics_file
        self._rests: dict[tuple[str, int], bytes] = {}
        self._file = metrics_file.open("ab", buffering=0)

    def resume(self, reports: Mapping[tuple[str, int], Path]) -> None:
        """Goes on behind what is here: adds what was reported and is not in the file yet.

        Args:
            reports: what is here of each worker's reports, by node and rank.

        Raises:
            StoreError: a file cannot be read or written.
        """
        try:
            known = _count_by_rank(self._path)
            for (node, rank), path in reports.items():
                *lines, rest = path.read_bytes().split(b"\n")
                metrics = [made for made in map(partial(_parse, rank), lines) if _is_metrics(made)]
                missing = metrics[known[rank] :]
                known[rank] -= min(known[rank], len(metrics))
                self._rests[node, rank] = rest[:MAX_LINE_BYTES]
                self._keep(b"".join(map(_line, missing)))
        except OSError as error:
            raise store_error(error, self._path) from None

    def feed(self, node: str, rank: int, data: bytes) -> Iterator[Report]:
        """Yields the reports that the next bytes complete; metrics are kept in the file.

        Raises:
            StoreError: this machine's disk does not take them.
        """
        *lines, rest = (self._rests.get((node, rank), b"") + data).split(b"\n")
        self._rests[node, rank] = rest[:MAX_LINE_BYTES]
        kept = bytearray()
        for line in lines:
            report = _parse(rank, line)
            if isinstance(report, Metrics):
                kept += _line(report)
            if report is not None:
                yield report
        if kept:
            self._keep(bytes(kept))

    def _keep(self, data: bytes) -> None:
        try:
            write_whole(self._file, data)
        except OSError as error:
            raise store_error(error, self._path) from None

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


def _is_metrics(report: Report | None) -> TypeGuard[Metrics]:
    return isinstance(report, Metrics)


def _count_by_rank(metrics_file: Path) -> Counter[int]:
    """Returns of how many reports of each rank the file tells."""
    found: Counter[int] = Counter()
    with metrics_file.open("rb") as file:
        for line in file:
            found[json.loads(line)["rank"]] += 1
    return found


def _line(report: Metrics) -> bytes:
    fields: dict[str, Any] = {"time": report.time, "rank": report.rank}
    if report.step is not None:
        fields["step"] = report.step
    if report.total is not None:
        fields["total"] = report.total
    return json.dumps({**fields, **report.values, **fields}).encode() + b"\n"


def _parse(rank: int, line: bytes) -> Report | None:
    """Returns what a line says; None for a torn or foreign one, and for other kinds."""
    try:
        fields = json.loads(line)
        kind = fields["kind"]
        if kind in _PHASES:
            return _PHASES[kind]
        if kind == "exception":
            return read_raised(fields)
        if kind != "metrics":
            return None
        step, total = fields.get("step"), fields.get("total")
        return Metrics(
            time=float(fields["time"]),
            rank=rank,
            step=None if step is None else int(step),
            total=None if total is None else int(total),
            values={name: _kept(value) for name, value in (fields.get("values") or {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _kept(value: Any) -> Any:
    """Returns a value as JSON has it: Python's own reader takes what JSON lacks, others do not."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
