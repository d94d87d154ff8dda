"""The ways in which `logs` prints lines: as people read them, folded, as JSON, or raw."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import click

from launcher.cli.labels import Labels
from launcher.cli.lines import harmless_block, prefixed
from launcher.cli.printing import write_bytes
from launcher.collect.log_reader import LogName

if TYPE_CHECKING:
    from launcher.cli.worker_lines import ShownLine
    from launcher.core.folding import FoldedLine


class Printer(Protocol):
    """Prints whole lines of one worker after the other."""

    def take(self, name: LogName, time: float, block: bytes) -> None:
        """Takes lines, with their ends, that came at a time; 0 where nobody knows it."""

    def tick(self, now: float) -> None:
        """Prints what has waited long enough, by the clock that the lines' times are of."""

    def close(self) -> None:
        """Prints what is left."""


def _write(data: bytes) -> None:
    write_bytes(sys.stdout, data)
    sys.stdout.flush()


class RawPrinter:
    """The workers' bytes, and nothing else."""

    def take(self, name: LogName, time: float, block: bytes) -> None:
        """Prints them; a terminal obeys what is in them."""
        sys.stdout.flush()
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()

    def tick(self, now: float) -> None:
        """Does nothing: nothing waits."""

    def close(self) -> None:
        """Does nothing: nothing is left."""


class JsonPrinter:
    """An object a line: time, node, rank, stream, line; base64 where the line is no UTF-8."""

    def take(self, name: LogName, time: float, block: bytes) -> None:
        """Prints them at once."""
        about = {
            "time": round(time, 6) if time else None,
            "node": name.node,
            "rank": name.rank,
            "stream": name.stream,
        }
        lines = block[:-1].split(b"\n")
        _write(b"".join(json.dumps({**about, **_text(line)}).encode() + b"\n" for line in lines))

    def tick(self, now: float) -> None:
        """Does nothing: nothing waits."""

    def close(self) -> None:
        """Does nothing: nothing is left."""


def _text(line: bytes) -> dict[str, str]:
    try:
        return {"line": line.decode()}
    except UnicodeDecodeError:
        import base64

        exact = base64.b64encode(line).decode()
        return {"line": line.decode("utf-8", "replace"), "base64": exact}


class PlainPrinter:
    """Lines behind their workers' names."""

    def __init__(self, labels: Labels, *, colour: bool) -> None:
        """Takes the labels; `colour` is for a terminal."""
        self._labels = labels
        self._colour = colour
        self._prefixes: dict[LogName, bytes] = {}

    def take(self, name: LogName, time: float, block: bytes) -> None:
        """Prints them at once."""
        if name not in self._prefixes:
            label = self._labels.at(name.node, name.rank)
            if self._colour:
                label = styled_label(label, self._labels.colour((name.rank,)))
            self._prefixes[name] = label.encode()
        _write(prefixed(harmless_block(block), self._prefixes[name]))

    def tick(self, now: float) -> None:
        """Does nothing: nothing waits."""

    def close(self) -> None:
        """Does nothing: nothing is left."""


class FoldingPrinter:
    """Equal lines of several workers as one."""

    def __init__(self, labels: Labels, world_size: int, *, colour: bool) -> None:
        """Takes the labels and how many workers there are; `colour` is for a terminal."""
        from launcher.core.folding import Folder

        self._prefix_of = _prefixes(labels, colour)
        self._folder = Folder(world_size)

    def take(self, name: LogName, time: float, block: bytes) -> None:
        """Holds them until others like them cannot come any more."""
        self.tick(time)
        for line in harmless_block(block)[:-1].split(b"\n"):
            self._folder.feed(name.rank, name.stream, line, time)

    def tick(self, now: float) -> None:
        """Prints those that have waited long enough."""
        self._print(self._folder.due(now))

    def close(self) -> None:
        """Prints what still waits."""
        self._print(self._folder.rest())

    def _print(self, lines: Sequence[FoldedLine]) -> None:
        if lines:
            _write(b"".join(self._prefix_of(line.ranks) + line.text + b"\n" for line in lines))


class TerminalPrinter:
    """As much as a person can read of what comes in now."""

    def __init__(self, nodes: Mapping[int, str], file_of: Callable[[int, str], str]) -> None:
        """Takes the node of each rank, and what names the file that has all of a stream."""
        from launcher.cli.worker_lines import WorkerLines

        self._lines = WorkerLines(nodes, file_of)
        self._now = 0.0

    def take(self, name: LogName, time: float, block: bytes) -> None:
        """Takes them in."""
        self._lines.feed(name.rank, name.stream, block, self._now)

    def tick(self, now: float) -> None:
        """Prints what is due."""
        self._now = now
        self._print(self._lines.due(now))

    def close(self) -> None:
        """Prints what is left."""
        self._print(self._lines.rest(self._now))

    def _print(self, lines: Sequence[ShownLine]) -> None:
        _write("".join(map(_styled, lines)).encode())


def _styled(line: ShownLine) -> str:
    if not line.label:
        return click.style(line.text, dim=True) + "\n"
    text = click.style(line.text, fg="red") if line.stream == "stderr" else line.text
    return styled_label(line.label, line.colour) + text + "\n"


def styled_label(label: str, colour: str) -> str:
    """Returns a label in its colour."""
    return click.style(label, bold=True) if colour == "bold" else click.style(label, fg=colour)


def _prefixes(labels: Labels, colour: bool) -> Callable[[tuple[int, ...]], bytes]:
    """Returns what gives the bytes in front of a line of these ranks."""
    made: dict[tuple[int, ...], bytes] = {}

    def prefix_of(ranks: tuple[int, ...]) -> bytes:
        if ranks not in made:
            label = labels.of_all(ranks)
            made[ranks] = (styled_label(label, labels.colour(ranks)) if colour else label).encode()
        return made[ranks]

    return prefix_of
