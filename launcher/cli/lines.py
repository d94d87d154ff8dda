"""Workers' bytes as lines for a terminal: never torn, never obeyed."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A line that does not end is shown in pieces of this size, so that memory stays bounded.
MAX_LINE_BYTES = 1 << 20
# Everything that could move the cursor, set a title or ask the terminal something.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


class LineAssembler:
    r"""Cuts one worker's stream into whole lines.

    >>> lines = LineAssembler()
    >>> list(lines.feed(b"ep")), list(lines.feed(b"och 1\nepo"))
    ([], ['epoch 1'])
    >>> list(lines.rest())
    ['epo']
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[str]:
        """Yields the lines that these bytes complete, without their ends."""
        self._rest += data
        if b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            yield from map(to_text, lines)
        if len(self._rest) > MAX_LINE_BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[str]:
        """Yields what came without an end."""
        if self._rest:
            line, self._rest = bytes(self._rest), bytearray()
            yield to_text(line)


def to_text(line: bytes) -> str:
    r"""Returns a line as it may be shown.

    A progress bar that redraws itself with carriage returns is shown as its last state; colours
    are dropped; other control characters are shown, as ``^[`` or ``\x9b``.

    >>> to_text(b"10%\r50%\r"), to_text(b"\x1b[31mred\x1b[0m \x1b[2J"), to_text(b"\xff")
    ('50%', 'red ^[[2J', '\ufffd')
    """
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
    return _CONTROL.sub(_shown, _COLOUR.sub("", text))


def harmless(text: str) -> str:
    r"""Returns words that a node chose as they may be shown; line ends stay.

    >>> harmless("no python\x1b[2J")
    'no python^[[2J'
    """
    return _CONTROL.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"^{chr(code ^ 64)}" if code < 128 else f"\\x{code:02x}"
