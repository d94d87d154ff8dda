"""What the workers of a run reported, read from metrics.jsonl: all of it, then what comes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from launcher.store.run_record import store_error

_OWN = frozenset(("time", "rank", "step", "total"))
_WORDS = ("nan", "inf", "-inf")


class Point(NamedTuple):
    """One report. Words of the file that stand for numbers are numbers here."""

    time: float
    rank: int
    step: int | None
    total: int | None
    values: dict[str, float]


class MetricsFile:
    """A file of reports that may still grow."""

    def __init__(self, path: Path) -> None:
        """Begins at its first line; the file may not be there yet."""
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""

    def more(self) -> Iterator[Point]:
        """Yields the reports that were added since the last call.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            if self._file is None:
                self._file = self._path.open("rb")
            for line in self._file:
                if not line.endswith(b"\n"):
                    # What a writer is in the middle of.
                    self._file.seek(-len(line), 1)
                    return
                point = parse(line)
                if point is not None:
                    yield point
        except FileNotFoundError:
            return
        except OSError as error:
            raise store_error(error, self._path) from None

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def parse(line: bytes) -> Point | None:
    """Returns the report of a line, None for a line that is none.

    >>> parse(b'{"time": 1.5, "rank": 0, "step": 3, "loss": "nan", "why": "text"}').values
    {'loss': nan}
    """
    try:
        fields = json.loads(line)
        values = {
            name: _number(value)
            for name, value in fields.items()
            if name not in _OWN and (type(value) in (float, int) or value in _WORDS)
        }
        return Point(
            float(fields["time"]),
            int(fields["rank"]),
            _whole(fields.get("step")),
            _whole(fields.get("total")),
            values,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _whole(value: object) -> int | None:
    """Returns a step; None for one that no run reaches."""
    return value if type(value) is int and abs(value) < 1 << 62 else None


def _number(value: float | str) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
