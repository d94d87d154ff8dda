"""Which logs of a run are wanted, from where on, and printed how."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import click

from launcher.cli import log_printers as printers
from launcher.cli.labels import Labels
from launcher.cli.lines import LineAssembler, max_line_bytes
from launcher.collect.log_reader import (
    LogName,
    LogReader,
    Piece,
    by_time,
    find_logs,
    known_gaps,
    matcher,
)
from launcher.errors import UsageError
from launcher.store.runs import KnownRun, find_run

# How often a log that is followed is looked at, and a directory for further ones, seconds.
FOLLOW_S = 0.1
RESCAN_S = 1.0
# What a launcher may take from a run's end to its exit code.
SUMMING_UP_S = 5.0


@dataclass(frozen=True)
class Wish:
    """What of the logs is wanted.

    Attributes:
        ranks: only these, None for all.
        nodes: only these, None for all.
        is_wanted: says whether a line is, None for all.
        since: only what came since then, seconds since 1970.
        merge: by time instead of one stream after the other.
    """

    follow: bool
    ranks: frozenset[int] | None
    nodes: frozenset[str] | None
    stream: str | None
    tail: int | None
    is_wanted: Callable[[bytes], bool] | None
    since: float | None
    merge: bool
    fold: bool
    raw: bool
    as_json: bool

    def wants(self, name: LogName) -> bool:
        """Says whether a log is."""
        return (
            (self.ranks is None or name.rank in self.ranks)
            and (self.nodes is None or name.node in self.nodes)
            and (self.stream is None or name.stream == self.stream)
        )


def parse_wish(
    *,
    follow: bool,
    rank: str | None,
    node: str | None,
    stream: str | None,
    tail: int | None,
    grep: str | None,
    since: str | None,
    merge: bool,
    fold: bool,
    raw: bool,
    as_json: bool,
    groups: Callable[[], Mapping[str, tuple[str, ...]]],
) -> Wish:
    """Returns what the command line asks for; `groups` gives those of the manifest.

    Raises:
        click.UsageError: an option cannot be read, or two exclude each other.
    """
    if sum((raw, fold, as_json)) > 1:
        raise click.UsageError("only one of --raw, --fold and --json")
    ranks = None if rank is None else _ranks(rank)
    names = None if node is None else _nodes(node, groups() if "@" in node else {})
    is_wanted = None if grep is None else _matcher(grep)
    at = None if since is None else _moment(since)
    return Wish(
        follow, ranks, names, stream, tail, is_wanted, at, merge or fold, fold, raw, as_json
    )


def _ranks(words: str) -> frozenset[int]:
    from launcher.core.nodeset import SetError, expand

    try:
        return frozenset(map(int, expand(f"[{words}]")))
    except SetError as error:
        raise click.BadParameter(str(error), param_hint="--rank") from None


def _nodes(words: str, groups: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    from launcher.core.nodeset import SetError, evaluate

    try:
        return evaluate(words, groups).chosen
    except SetError as error:
        raise click.BadParameter(str(error), param_hint="--node") from None


def _matcher(words: str) -> Callable[[bytes], bool]:
    try:
        return matcher(words)
    except ValueError as error:
        raise click.BadParameter(f"{words!r}: {error}", param_hint="--grep") from None


def _moment(words: str) -> float:
    from launcher.core.moments import moment

    try:
        return moment(words, time.time())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None


class LogView:
    """The logs of one run, on their way to a printer."""

    def __init__(self, known: KnownRun, wish: Wish) -> None:
        self._known = known
        self._wish = wish
        self._readers: dict[LogName, LogReader] = {}
        self._lines: dict[LogName, LineAssembler] = {}
        self._gaps = known_gaps(known.paths)
        self.nodes = self._all_nodes()
        self._require_known()
        self._open_new()

    def _require_known(self) -> None:
        """Says so where a rank or node is asked for that the run does not have."""
        ranks = (self._wish.ranks or frozenset()) - self.nodes.keys()
        if ranks:
            there = f"there are 0 to {max(self.nodes)}" if self.nodes else "there are none yet"
            raise UsageError(f"rank {min(ranks)} is not in {self._known.run_id}: {there}")
        nodes = (self._wish.nodes or frozenset()) - set(self.nodes.values())
        if nodes:
            from launcher.core.nodeset import fold

            there = fold(dict.fromkeys(self.nodes.values())) or "none yet"
            raise UsageError(
                f"no rank of {self._known.run_id} is on {min(nodes)}: there are {there}"
            )

    def _all_nodes(self) -> dict[int, str]:
        """Returns the node of each rank: as planned, and where its logs lie."""
        planned = {rank["rank"]: rank["node"] for rank in self._known.plan()["ranks"]}
        return {**planned, **{name.rank: name.node for name in find_logs(self._known.paths)}}

    def _open_new(self) -> list[LogReader]:
        found = []
        for name in find_logs(self._known.paths):
            if name not in self._readers and self._wish.wants(name):
                gaps = self._gaps.get((name.node, name.rank, name.stream), ())
                self._readers[name] = LogReader(self._known.paths, name, gaps)
                found.append(self._readers[name])
        return found

    def show(self) -> None:
        """Prints what is there, and goes on where that is asked for."""
        wish, readers = self._wish, list(self._readers.values())
        for reader in readers:
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
