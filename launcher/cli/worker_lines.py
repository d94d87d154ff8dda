"""What a terminal shows of workers that may say more than a person can read.

Two bounds: one a stream, before its lines are taken apart, so that a flood costs nothing and a loud
worker does not hide the others; and one for all, after equal lines were folded, so that a thousand
workers that say the same are one line. What is left out is counted, and is in the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from launcher.cli.labels import Labels
from launcher.cli.lines import LineAssembler, harmless_block, max_line_bytes
from launcher.core.folding import FoldedLine, Folder

# A person sees so many lines at once, and can follow so many a second.
MAX_BURST = 400
LINES_A_SECOND = 200
# What one stream may have of that where there are many.
LEAST_BURST = 100
LEAST_LINES_A_SECOND = 20
# Nobody reads on at the end of such a line.
MAX_SHOWN_CHARS = 2000
NOTE_INTERVAL_S = 1.0
_STREAMS = ("stdout", "stderr")


@dataclass(frozen=True)
class ShownLine:
    """One line of a terminal.

    Attributes:
        label: what stands in front; "" for a note of flowlaunch's own.
        colour: the label's.
        stream: where the worker wrote it, "" for a note.
        text: harmless, without an end.
    """

    label: str
    colour: str
    stream: str
    text: str


class WorkerLines:
    """Takes the workers' bytes and gives what is to be shown of them."""

    def __init__(self, nodes: Mapping[int, str], file_of: Callable[[int, str], str]) -> None:
        """Takes the node of each rank, and what names the file that has all of a stream."""
        self._labels = Labels(nodes)
        self._file_of = file_of
        self._folder = Folder(len(nodes))
        self._assemblers: dict[tuple[int, str], LineAssembler] = {}
        self._max_line_bytes = max_line_bytes(len(nodes) * len(_STREAMS))
        self._world_size = max(1, len(nodes))
        self._shares: dict[tuple[int, str], _Budget] = {}
        self._skipped: Counter[tuple[int, str]] = Counter()
        self._noted_at = float("-inf")
        self._budgets = {stream: _Budget(MAX_BURST, LINES_A_SECOND) for stream in _STREAMS}

    def feed(self, rank: int, stream: str, data: bytes, now: float) -> None:
        """Takes a worker's next bytes."""
        key = (rank, stream)
        if key not in self._assemblers:
            self._assemblers[key] = LineAssembler(self._max_line_bytes)
            self._shares[key] = self._share()
        lines, share = self._assemblers[key], self._shares[key]
        count, room = data.count(b"\n"), share.room(now)
        share.spend(min(count, room))
        if count <= room:
            self._fold(key, lines.feed(data), now)
            return
        head = _end_of_line(data, room)
        self._fold(key, lines.feed(data[:head]), now)
        self._skipped[key] += count - room
        # The end of a line whose beginning was taken is left out with it.
        lines.rest()
        lines.feed(data[data.rfind(b"\n") + 1 :])

    def _fold(self, key: tuple[int, str], block: bytes, now: float) -> None:
        rank, stream = key
        for line in harmless_block(block).split(b"\n")[:-1]:
            self._folder.feed(rank, stream, line, now)

    def _share(self) -> _Budget:
        """Returns what one stream may have."""
        return _Budget(
            max(LEAST_BURST, MAX_BURST // self._world_size),
            max(LEAST_LINES_A_SECOND, LINES_A_SECOND // self._world_size),
        )

    def due(self, now: float) -> list[ShownLine]:
        """Returns what is to be shown now."""
        return self._shown(self._folder.due(now), now, NOTE_INTERVAL_S)

    def rest(self, now: float) -> list[ShownLine]:
        """Returns what is left to be shown at the end."""
        for key, lines in self._assemblers.items():
            self._fold(key, lines.rest(), now)
        return self._shown(self._folder.rest(), now, 0.0)

    def _shown(self, folded: list[FoldedLine], now: float, interval_s: float) -> list[ShownLine]:
        found = []
        for line in folded:
            budget = self._budgets[line.stream]
            if budget.room(now):
                budget.spend(1)
                found.append(self._line(line))
            else:
                self._skipped.update((rank, line.stream) for rank in line.ranks)
        if self._skipped and now - self._noted_at >= interval_s:
            self._noted_at = now
            found.append(ShownLine("", "", "", self._note()))
            self._skipped.clear()
        return found

    def _line(self, line: FoldedLine) -> ShownLine:
        text = line.text.decode("utf-8", "replace")
        if len(text) > MAX_SHOWN_CHARS:
            more = len(text) - MAX_SHOWN_CHARS
            where = self._file_of(line.ranks[0], line.stream)
            text = f"{text[:MAX_SHOWN_CHARS]} … {more} more characters in {where}"
        label, colour = self._labels.of_all(line.ranks), self._labels.colour(line.ranks)
        return ShownLine(label, colour, line.stream, text)

    def _note(self) -> str:
        total = self._skipped.total()
        (rank, stream), _ = self._skipped.most_common(1)[0]
        where, others = self._file_of(rank, stream), len(self._skipped) - 1
        if others:
            where += " and 1 other file" if others == 1 else f" and {others} other files"
        words = "1 line is" if total == 1 else f"{total:,} lines are"
        return f"… {words} not shown; everything is in {where}"


class _Budget:
    """So many lines a second, and some at once after a pause."""

    def __init__(self, burst: int, a_second: int) -> None:
        self._burst = burst
        self._a_second = a_second
        self._left = float(burst)
        self._at: float | None = None

    def room(self, now: float) -> int:
        """Returns how many more may pass."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._a_second)
        self._at = now
        return int(self._left)

    def spend(self, count: int) -> None:
        """Notes that so many have passed."""
        self._left -= count


def _end_of_line(data: bytes, count: int) -> int:
    """Returns where the first so many lines end."""
    end = 0
    for _ in range(count):
        end = data.find(b"\n", end) + 1
    return end
