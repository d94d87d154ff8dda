"""The logs of a run on their way to a printer: what is there, and what comes."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Iterator

from launcher.cli import log_printers as printers
from launcher.cli.labels import Labels
from launcher.cli.lines import LineAssembler, max_line_bytes
from launcher.cli.log_wish import Wish
from launcher.collect.log_reader import (
    LogName,
    LogReader,
    Piece,
    by_time,
    find_logs,
    known_gaps,
)
from launcher.errors import UsageError
from launcher.store.runs import KnownRun, find_run

# How often a log that is followed is looked at, and a directory for further ones, seconds.
FOLLOW_S = 0.1
RESCAN_S = 1.0
# What a launcher may take from a run's end to its exit code.
SUMMING_UP_S = 5.0


class LogView:
    """The logs of one run, on their way to a printer."""

    def __init__(self, known: KnownRun, wish: Wish) -> None:
        self._known = known
        self._wish = wish
        self._readers: dict[LogName, LogReader] = {}
        self._lines: dict[LogName, LineAssembler] = {}
        self._gaps = known_gaps(known.paths)
        planned = {rank["rank"]: rank["node"] for rank in known.plan()["ranks"]}
        written = find_logs(known.paths)
        # Where a rank has moved, its newest place is what the plan says.
        self.nodes = {**{name.rank: name.node for name in written}, **planned}
        self._require_known({*planned.values(), *(name.node for name in written)})
        self._open_new()

    def _require_known(self, there: set[str]) -> None:
        """Says so where a rank or node is asked for that the run does not have."""
        ranks = (self._wish.ranks or frozenset()) - self.nodes.keys()
        if ranks:
            words = f"there are 0 to {max(self.nodes)}" if self.nodes else "there are none yet"
            raise UsageError(f"rank {min(ranks)} is not in {self._known.run_id}: {words}")
        nodes = (self._wish.nodes or frozenset()) - there
        if nodes:
            from launcher.core.nodeset import fold

            words = fold(sorted(there)) or "none yet"
            raise UsageError(
                f"no rank of {self._known.run_id} is on {min(nodes)}: there are {words}"
            )

    def _open_new(self) -> None:
        for name in find_logs(self._known.paths):
            if name not in self._readers and self._wish.wants(name):
                gaps = self._gaps.get((name.node, name.rank, name.stream), ())
                self._readers[name] = LogReader(self._known.paths, name, gaps)

    def show(self) -> None:
        """Prints what is there, and goes on where that is asked for."""
        wish = self._wish
        self._tell_gaps()
        for reader in self._readers.values():
            if wish.since is not None:
                reader.seek_since(wish.since)
            if wish.tail is not None:
                reader.seek_tail(wish.tail, wish.is_wanted or _any_line)
        printer = self._printer(is_live=False)
        if wish.merge and wish.tail is not None:
            self._print_last(printer, wish.tail)
        else:
            self._print_new(printer)
        if wish.follow:
            printer = self._follow(printer)
        for name in self._lines:
            self._take(printer, name, 0.0, self._lines[name].rest())
        printer.close()

    def _tell_gaps(self) -> None:
        """Says what is missing inside of the logs that are shown."""
        if not self._gaps:
            return
        from launcher.cli import render
        from launcher.collect.logs import LogGap, describe_gap

        for name in sorted(self._readers):
            spans = self._gaps.get((name.node, name.rank, name.stream), ())
            if spans:
                missing = [(span.start, span.end) for span in spans]
                gap = LogGap(name.rank, name.stream, missing)
                render.notice(f"flowlaunch | {describe_gap(name.node, gap)}")

    def _printer(self, *, is_live: bool) -> printers.Printer:
        """Returns the printer that fits the wish; live lines on a terminal may be a flood."""
        wish, colour = self._wish, sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        if wish.raw:
            return printers.RawPrinter()
        if wish.as_json:
            return printers.JsonPrinter()
        if is_live and sys.stdout.isatty():
            paths = self._known.paths
            return printers.TerminalPrinter(
                self.nodes,
                lambda rank, stream: str(paths.log(self.nodes[rank], rank, stream)),
            )
        labels = Labels(self.nodes)
        if wish.fold:
            chosen = {name.rank for name in self._readers}
            return printers.FoldingPrinter(labels, len(chosen), colour=colour)
        return printers.PlainPrinter(labels, colour=colour)

    def _pieces(self) -> Iterator[tuple[LogReader, Piece]]:
        readers = [self._readers[name] for name in sorted(self._readers)]
        if self._wish.merge:
            return by_time(readers)
        return ((reader, piece) for reader in readers for piece in reader.pieces())

    def _blocks(self) -> Iterator[tuple[LogName, float, bytes]]:
        """Yields whole lines that came since the last call, with their logs and times."""
        for reader, piece in self._pieces():
            name = reader.name
            if self._is_as_it_is:
                yield name, piece.time, piece.data
                continue
            if name not in self._lines:
                self._lines[name] = LineAssembler(max_line_bytes(len(self._readers)))
            yield name, piece.time, self._lines[name].feed(piece.data)

    @property
    def _is_as_it_is(self) -> bool:
        """Whether bytes are printed that need not be taken for lines."""
        return self._wish.raw and self._wish.is_wanted is None and not self._wish.merge

    def _print_new(self, printer: printers.Printer) -> bool:
        """Prints what came since the last call; returns whether that was anything."""
        last, any_came = None, False
        for name, at, block in self._blocks():
            if last not in (None, name) and not self._wish.merge and not self._wish.follow:
                # A log that ends without a line's end is over before the next one begins.
                self._end_line(printer, last)
            last, any_came = name, True
            self._take(printer, name, at, block)
        return any_came

    def _end_line(self, printer: printers.Printer, name: LogName | None) -> None:
        if name is not None and name in self._lines:
            self._take(printer, name, 0.0, self._lines[name].rest())

    def _take(self, printer: printers.Printer, name: LogName, at: float, block: bytes) -> None:
        is_wanted = self._wish.is_wanted
        if is_wanted is not None and block:
            lines = (line for line in block[:-1].split(b"\n") if is_wanted(line))
            block = b"".join(line + b"\n" for line in lines)
        if block:
            printer.take(name, at, block)

    def _print_last(self, printer: printers.Printer, count: int) -> None:
        """Prints the last so many lines of all logs together."""
        last: deque[tuple[LogName, float, bytes]] = deque(maxlen=count)
        is_wanted = self._wish.is_wanted or _any_line
        blocks = self._blocks()
        if not self._wish.follow:
            blocks = itertools.chain(blocks, self._unended())
        for name, at, block in blocks:
            lines = block.split(b"\n")[:-1]
            last.extend((name, at, line + b"\n") for line in lines if is_wanted(line))
        for name, at, line in last:
            printer.take(name, at, line)

    def _unended(self) -> Iterator[tuple[LogName, float, bytes]]:
        for name, lines in self._lines.items():
            yield name, 0.0, lines.rest()

    # While the run goes on

    def _follow(self, printer: printers.Printer) -> printers.Printer:
        """Prints what comes until the run has ended; returns the printer that does so."""
        from launcher.cli import render
        from launcher.cli.log_notices import Notices

        live = self._printer(is_live=True)
        if isinstance(live, printers.TerminalPrinter):
            printer.close()
            printer = live
        notices, rescan_at, ended_at = Notices(self._known), 0.0, float("inf")
        while True:
            # Before the logs: what was written before the end is printed before the end.
            known = find_run(self._known.top.parent, str(self._known.top.absolute()))
            if known.has_ended or time.monotonic() >= rescan_at:
                rescan_at = time.monotonic() + RESCAN_S
                self._open_new()
            came = self._print_new(printer)
            printer.tick(time.time())
            for words in notices.read(known):
                render.notice(f"flowlaunch | {words}")
            if known.has_ended:
                ended_at = min(ended_at, time.monotonic())
                code = known.record.get("exit_code")
                # The launcher sums up a moment after the end; one that was killed never does.
                if not came and (code is not None or time.monotonic() - ended_at > SUMMING_UP_S):
                    render.notice(f"flowlaunch | the run has ended, exit code {code}")
                    return printer
            time.sleep(FOLLOW_S)

    def close(self) -> None:
        """Lets go of the files."""
        for reader in self._readers.values():
            reader.close()


def _any_line(line: bytes) -> bool:
    return True
