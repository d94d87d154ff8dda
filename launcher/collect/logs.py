"""The workers' bytes on this machine: exactly those that they wrote, proven at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from launcher.collect.stream_file import DIFFERS, Span, StreamFile
from launcher.core.paths import RunPaths
from launcher.errors import StoreError
from launcher.store.run_record import store_error

REPORT = "report"
_STREAMS = ("stdout", "stderr", REPORT)


class LogGap(NamedTuple):
    """Bytes of a stream are missing; the node has sent others that come after them."""

    rank: int
    stream: str
    missing: list[tuple[int, int]]


class LogGapClosed(NamedTuple):
    """The bytes that were missing of a stream are here."""

    rank: int
    stream: str


class LogCollector:
    """All streams of a run."""

    def __init__(
        self,
        paths: RunPaths,
        nodes: dict[int, str],
        on_gap: Callable[[str, LogGap | LogGapClosed], None] = lambda node, gap: None,
    ) -> None:
        """Goes on with what is here of a run.

        Args:
            paths: the run's.
            nodes: the node of each rank.
            on_gap: is told of each gap, with its node, and when it is closed.
        """
        self._paths = paths
        self._places: set[tuple[str, int]] = set()
        self._on_gap = on_gap
        self._streams: dict[tuple[str, int, str], StreamFile] = {}
        self.place(nodes)

    def place(self, nodes: dict[int, str]) -> None:
        """Takes streams of these workers too; an attempt may have others than the one before."""
        self._places |= {(node, rank) for rank, node in nodes.items()}

    def resume(self, event_lines: Iterable[bytes]) -> None:
        """Takes up every stream that is here, with the gaps that events.jsonl tells of.

        Raises:
            StoreError: a file cannot be written.
        """
        gaps = open_gaps(event_lines)
        for node, rank in self._places:
            for stream in _STREAMS:
                if self._path(node, rank, stream).exists():
                    file = self._stream(node, rank, stream)
                    known = gaps.get((node, rank, stream), [])
                    file.gaps = [gap for gap in known if gap.end <= file.size]

    def reports(self) -> dict[tuple[str, int], Path]:
        """Returns what is here of each worker's reports, by node and rank."""
        paths = {place: self._path(*place, REPORT) for place in sorted(self._places)}
        return {place: path for place, path in paths.items() if path.exists()}

    def offsets(self) -> dict[str, dict[str, dict[str, int]]]:
        """Returns up to where each stream is here, by node, rank and stream, as the wire has it."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for (node, rank, stream), file in list(self._streams.items()):
            of_rank = found.setdefault(node, {}).setdefault(str(rank), {})
            of_rank[stream] = file.whole_bytes
        return found

    def sync(self) -> dict[str, dict[str, dict[str, int]]]:
        """Makes sure that what is here survives a power cut; returns the offsets up to there.

        Another thread may call it while streams grow.

        Raises:
            StoreError: the disk does not take it.
        """
        found: dict[str, dict[str, dict[str, int]]] = {}
        for (node, rank, stream), file in list(self._streams.items()):
            of_rank = found.setdefault(node, {}).setdefault(str(rank), {})
            try:
                of_rank[stream] = file.sync()
            except OSError as error:
                raise store_error(error, Path(self._paths.top)) from None
        return found

    def append(
        self,
        node: str,
        rank: int,
        stream: str,
        offset: int,
        data: bytes,
        at: float | None = None,
    ) -> bytes:
        """Keeps bytes of a stream; returns those that are new.

        Args:
            node: the worker's node.
            rank: the worker.
            stream: which of its streams.
            offset: where the first byte stands in it.
            data: the bytes.
            at: when the worker wrote them, by this machine's clock.

        Raises:
            StoreError: this machine's disk does not take them, or no worker has such a stream.
        """
        file = self._stream(node, rank, stream)
        had_gaps, is_beyond = bool(file.gaps), offset > file.size
        try:
            fresh = file.append(offset, data, at)
        except OSError as error:
            raise store_error(error, Path(self._paths.top)) from None
        if is_beyond:
            missing = [(gap.start, gap.end) for gap in file.gaps]
            self._on_gap(node, LogGap(rank, stream, missing))
        elif had_gaps and not file.gaps:
            self._on_gap(node, LogGapClosed(rank, stream))
        return fresh

    def _stream(self, node: str, rank: int, stream: str) -> StreamFile:
        key = (node, rank, stream)
        if (node, rank) not in self._places or stream not in _STREAMS:
            # Names come from the nodes and become file names here.
            raise StoreError(f"{node} sent output of rank {rank}'s {stream!r}, which is not there")
        if key not in self._streams:
            self._streams[key] = self._open(node, rank, stream)
        return self._streams[key]

    def _path(self, node: str, rank: int, stream: str) -> Path:
        if stream == REPORT:
            return Path(self._paths.report(node, rank))
        return Path(self._paths.log(node, rank, stream))

    def _open(self, node: str, rank: int, stream: str) -> StreamFile:
        times = None if stream == REPORT else Path(self._paths.log_times(node, rank, stream))
        try:
            return StreamFile(self._path(node, rank, stream), times)
        except OSError as error:
            raise store_error(error, Path(self._paths.top)) from None

    def problem_with(self, node: str, rank: int, stream: str, size: int, sha256: str) -> str:
        """Returns what is wrong with a stream that has ended, "" if it is here whole.

        One whose bytes differ is wanted anew from its beginning: a gap from end to end.
        """
        file = self._stream(node, rank, stream)
        problem = file.problem_with(size, sha256)
        if problem == DIFFERS and size:
            file.distrust()
            self._on_gap(node, LogGap(rank, stream, [(0, size)]))
        return f"{node}: rank {rank}'s {stream}: {problem}" if problem else ""

    def tail(self, node: str, rank: int, stream: str, max_bytes: int) -> bytes:
        """Returns the end of a stream as it is here."""
        path = self._path(node, rank, stream)
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - max_bytes))
                return file.read()
        except FileNotFoundError:
            return b""

    def close(self) -> None:
        """Lets go of every file."""
        for stream in self._streams.values():
            stream.close()


def describe_gap(node: str, gap: LogGap) -> str:
    """Returns what is said of a gap.

    >>> describe_gap("gpu1", LogGap(3, "stdout", [(10, 20)]))
    "gpu1: rank 3's stdout: bytes 10 to 20 are missing; `flowlaunch logs --sync` asks for them"
    """
    spans = ", ".join(str(Span(start, end)) for start, end in gap.missing)
    return (
        f"{node}: rank {gap.rank}'s {gap.stream}: {spans} are missing; "
        "`flowlaunch logs --sync` asks for them"
    )


def open_gaps(event_lines: Iterable[bytes]) -> dict[tuple[str, int, str], list[Span]]:
    """Returns what events.jsonl says is missing inside of each stream: node, rank, stream."""
    found: dict[tuple[str, int, str], list[Span]] = {}
    for line in event_lines:
        if b'"log_gap' not in line:
            continue
        fields = json.loads(line)
        key = (fields["node"], fields["rank"], fields["stream"])
        if fields["event"] == "log_gap":
            found[key] = [Span(start, end) for start, end in fields["missing"]]
        elif fields["event"] == "log_gap_closed":
            found.pop(key, None)
    return found
