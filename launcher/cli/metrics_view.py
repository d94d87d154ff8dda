"""The forms in which reports are printed, and the way that they take there."""

from __future__ import annotations

import csv
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from launcher.cli import render, summary
from launcher.cli.lines import harmless
from launcher.core.envelope import Envelope
from launcher.errors import UsageError
from launcher.store.metrics_file import MetricsFile, Point
from launcher.store.run_record import store_error
from launcher.store.runs import KnownRun, find_run

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

Ranks = frozenset[int] | None
FOLLOW_S = 0.5
# A curve of a terminal's width, twice for what lies between two columns.
_PLOT_BUCKETS = 400
_MOST_PLOTS = 4
_SUFFIX = ".flowlaunch"


class Printer(Protocol):
    """One form."""

    def take(self, point: Point) -> None:
        """Takes a report."""

    def tick(self) -> None:
        """Everything that there is so far was taken."""

    def close(self) -> None:
        """Nothing more comes."""


def show(known: KnownRun, printer: Printer, ranks: Ranks, *, follow: bool) -> None:
    """Gives a printer the reports of a run, those to come too where they are followed."""
    file = MetricsFile(Path(known.paths.metrics))
    try:
        while True:
            # Before the reports: those of the end are taken before the end.
            known = find_run(known.top.parent, str(known.top.absolute()))
            came = False
            for point in _wanted(file.more(), ranks):
                came = True
                printer.take(point)
            printer.tick()
            if not follow or (known.has_ended and not came):
                break
            time.sleep(FOLLOW_S)
    finally:
        file.close()
    printer.close()


def _wanted(points: Iterator[Point], ranks: Ranks) -> Iterator[Point]:
    return points if ranks is None else (point for point in points if point.rank in ranks)


def names_of(known: KnownRun, ranks: Ranks) -> list[str]:
    """Returns the names of all values that were reported so far."""
    file = MetricsFile(Path(known.paths.metrics))
    try:
        return list(dict.fromkeys(n for point in _wanted(file.more(), ranks) for n in point.values))
    finally:
        file.close()


class CsvPrinter:
    """A row for each report."""

    def __init__(self, names: list[str]) -> None:
        """Prints the head; a name that comes later has no column."""
        self._names = names
        self._late: set[str] = set()
        self._rows = csv.writer(sys.stdout, lineterminator="\n")
        self._rows.writerow(["time", "rank", "step", "total", *names])

    def take(self, point: Point) -> None:
        """Prints a row."""
        values = [point.values.get(name) for name in self._names]
        self._rows.writerow([point.time, point.rank, point.step, point.total, *values])
        for name in point.values.keys() - set(self._names) - self._late:
            self._late.add(name)
            render.notice(f"{harmless(name)}: reported for the first time now; it has no column")

    def tick(self) -> None:
        """Hands the rows on."""
        sys.stdout.flush()

    def close(self) -> None:
        """Does nothing more."""


class JsonPrinter:
    """A JSON object for each report, as metrics.jsonl has it."""

    def take(self, point: Point) -> None:
        """Prints an object."""
        fields: dict[str, Any] = {"time": point.time, "rank": point.rank}
        fields |= {} if point.step is None else {"step": point.step}
        fields |= {} if point.total is None else {"total": point.total}
        values = {
            name: value if math.isfinite(value) else str(value)
            for name, value in point.values.items()
        }
        sys.stdout.write(json.dumps({**fields, **values}) + "\n")

    def tick(self) -> None:
        """Hands the objects on."""
        sys.stdout.flush()

    def close(self) -> None:
        """Does nothing more."""


@dataclass
class _Column:
    """What a table says of one metric; the extremes are those of finite values."""

    newest: Point
    low: float = math.inf
    high: float = -math.inf
    reports: int = 0
    odd: int = 0
    ranks: set[int] = field(default_factory=set)


class TablePrinter:
    """A row for each metric; live, a line for each report."""

    def __init__(self, *, is_live: bool) -> None:
        self._is_live = is_live
        self._columns: dict[str, _Column] = {}

    def take(self, point: Point) -> None:
        """Takes a report into its metrics' rows."""
        if self._is_live:
            sys.stdout.write(_in_words(point) + "\n")
        for name, value in point.values.items():
            column = self._columns.setdefault(name, _Column(point))
            column.newest = point
            column.reports += 1
            column.ranks.add(point.rank)
            if math.isfinite(value):
                column.low, column.high = min(column.low, value), max(column.high, value)
            else:
                column.odd += 1

    def tick(self) -> None:
        """Hands the lines on."""
        sys.stdout.flush()

    def close(self) -> None:
        """Prints the table."""
        from rich.markup import escape
        from rich.table import Table

        from launcher.core.nodeset import fold

        if not self._columns:
            render.notice("nothing was reported")
            return
        titles = ("metric", "newest", "at step", "by rank", "lowest", "highest", "reports", "ranks")
        table = Table(*titles, box=None, header_style="bold", pad_edge=False)
        for name, column in self._columns.items():
            newest, odd = column.newest, f", {column.odd} not finite" if column.odd else ""
            cells = (
                summary.label(name), summary.value(newest.values[name]),
                "-" if newest.step is None else newest.step, newest.rank,
                *(summary.value(v) if math.isfinite(v) else "-" for v in (column.low, column.high)),
                f"{column.reports}{odd}", fold([str(rank) for rank in sorted(column.ranks)]),
            )  # fmt: skip
            table.add_row(*(escape(harmless(str(cell))) for cell in cells))
        render.console().print(table)


def _in_words(point: Point) -> str:
    total = f"/{point.total}" if point.total is not None else ""
    step = f"step {point.step}{total}" if point.step is not None else ""
    values = [
        f"{summary.label(name)} {summary.value(value)}" for name, value in point.values.items()
    ]
    return harmless("  ".join([f"rank {point.rank}", *filter(None, [step]), *values]))


class PlotPrinter:
    """Curves over the steps; a metric's curve is that of the lowest rank that reports it."""

    def __init__(self, title: str, *, is_live: bool) -> None:
        self._title = title
        self._is_live = is_live and sys.stdout.isatty()
        self._curves: dict[str, tuple[int, Envelope]] = {}
        self._count = 0

    def take(self, point: Point) -> None:
        """Takes a report into its curves."""
        self._count += 1
        x = float(self._count if point.step is None else point.step)
        for name, value in point.values.items():
            rank, curve = self._curves.get(name, (point.rank, None))
            if curve is None or point.rank < rank:
                curve = Envelope(_PLOT_BUCKETS)
                self._curves[name] = (point.rank, curve)
            if point.rank <= rank:
                curve.add(x, value)

    def tick(self) -> None:
        """Draws anew where somebody watches."""
        if self._is_live and self._curves:
            sys.stdout.write("\x1b[H\x1b[J" + self._drawn())
            sys.stdout.flush()

    def close(self) -> None:
        """Draws, once."""
        if not self._curves:
            render.notice("nothing was reported")
        elif not self._is_live:
            sys.stdout.write(self._drawn())
            sys.stdout.flush()

    def _drawn(self) -> str:
        size = shutil.get_terminal_size()
        curves = list(self._curves.items())
        more = len(curves) - _MOST_PLOTS
        height = max(6, (size.lines - 3) // min(len(curves), _MOST_PLOTS))
        text = "".join(
            self._plot(name, rank, curve, size.columns, height)
            for name, (rank, curve) in curves[:_MOST_PLOTS]
        )
        words = f"{summary.counted(more, 'more metric')}: --csv has all\n" if more > 0 else ""
        return f"{text}{words}"

    def _plot(self, name: str, rank: int, curve: Envelope, width: int, height: int) -> str:
        import plotext

        points = [point for bucket in curve.buckets() for point in bucket.points()]
        odd = [bucket.odd for bucket in curve.buckets() if bucket.odd is not None]
        words = f"{summary.label(name)} of rank {rank}, {self._title}"
        if odd:
            words += f"; {odd[0][1]} first at step {odd[0][0]:.0f}"
        if not points:
            return harmless(words) + "\n"
        plotext.clear_figure()
        plotext.theme("clear")
        plotext.plotsize(width, height)
        plotext.title(harmless(words).replace("\n", " "))
        plotext.plot([x for x, _ in points], [y for _, y in points])
        drawn: str = plotext.build()
        # Colours come at the end of each line even where there are none.
        return drawn.replace("\x1b[0m", "") + "\n"


class TensorboardPrinter:
    """Event files: a directory a run, and one a rank below it."""

    def __init__(self, directory: str, run_id: str) -> None:
        """Takes the directory; what an earlier call wrote there of this run is replaced.

        Raises:
            UsageError: the writer of such files is not installed.
        """
        try:
            import tensorboardX  # noqa: F401 - only asked for
        except ImportError:
            raise UsageError(
                "--tensorboard needs the package tensorboardX, which is not installed",
                hint="pip install 'flowlaunch[tensorboard]'",
            ) from None
        # It would say of every value that is not finite that there is one.
        logging.getLogger("tensorboardX").setLevel(logging.ERROR)
        self._top = Path(directory) / run_id
        self._writers: dict[int, SummaryWriter] = {}
        self._counts: dict[tuple[int, str], int] = {}

    def take(self, point: Point) -> None:
        """Writes a report's values.

        Raises:
            StoreError: the disk refuses.
        """
        if not point.values:
            return
        try:
            writer = self._writer(point.rank)
            for name, value in point.values.items():
                key = (point.rank, name)
                count = self._counts[key] = self._counts.get(key, -1) + 1
                step = count if point.step is None else point.step
                writer.add_scalar(name, value, step, point.time)
        except OSError as error:
            raise store_error(error, self._top) from None

    def _writer(self, rank: int) -> SummaryWriter:
        if rank not in self._writers:
            from tensorboardX import SummaryWriter

            where = self._top / f"rank-{rank}"
            for old in where.glob(f"*{_SUFFIX}"):
                old.unlink()
            self._writers[rank] = SummaryWriter(str(where), filename_suffix=_SUFFIX)
        return self._writers[rank]

    def tick(self) -> None:
        """Puts what was written where TensorBoard sees it."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Ends the files."""
        for writer in self._writers.values():
            writer.close()
        count = summary.counted(len(self._writers), "rank")
        render.notice(
            f"event files of {count} in {self._top}; look: tensorboard --logdir {self._top}"
        )
