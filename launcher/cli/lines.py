"""Workers' bytes as lines for a terminal: never torn, never obeyed.

Everything here takes many lines at once: a flood of them costs no Python a line.
"""

from __future__ import annotations

import re

# A line that does not end is shown in pieces of this size, so that memory stays bounded.
MAX_LINE_BYTES = 1 << 20
# What lines without an end may take in all, however many workers there are.
MAX_REST_BYTES = 64 << 20
# Everything that could move the cursor, set a title or ask the terminal something.
_CONTROL_BYTES = bytes((*range(0x09), *range(0x0B, 0x20), 0x7F))
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_BEFORE_RETURN = re.compile(r"(?m)^[^\n]*\r(?!\r*$)|\r+$")


class LineAssembler:
    r"""Cuts one worker's stream behind whole lines.

    >>> lines = LineAssembler()
    >>> lines.feed(b"ep"), lines.feed(b"och 1\nepo"), lines.rest()
    (b'', b'epoch 1\n', b'epo\n')
    """

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        """Takes how long a line may become before it is cut."""
        self._max_bytes = max_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Returns the lines that these bytes complete, with their ends."""
        end = data.rfind(b"\n") + 1
        if end == len(data) and not self._rest:
            return data
        block = b""
        if end:
            block = b"".join((*self._rest, data[:end]))
            self._rest, self._rest_bytes = [], 0
        if end < len(data):
            self._rest.append(data[end:])
            self._rest_bytes += len(data) - end
        return block + self.rest() if self._rest_bytes > self._max_bytes else block

    def rest(self) -> bytes:
        """Returns what came without an end, with one."""
        if not self._rest:
            return b""
        line = b"".join((*self._rest, b"\n"))
        self._rest, self._rest_bytes = [], 0
        return line


def max_line_bytes(streams: int) -> int:
    """Returns how long a line may become where there are so many streams."""
    return min(MAX_LINE_BYTES, MAX_REST_BYTES // max(1, streams))


def harmless_block(block: bytes) -> bytes:
    r"""Returns lines as they may be shown; line ends stay.

    A progress bar that redraws itself with carriage returns is shown as its last state; colours
    are dropped; other control characters are shown, as ``^[`` or ``\x9b``.

    >>> harmless_block(b"10%\r50%\r\n\x1b[31mred\x1b[0m \x1b[2J\n")
    b'50%\nred ^[[2J\n'
    """
    if block.isascii() and len(block.translate(None, _CONTROL_BYTES)) == len(block):
        return block
    text = block.decode("utf-8", "replace")
    if "\r" in text:
        text = _BEFORE_RETURN.sub("", text)
    return _CONTROL.sub(_shown, _COLOUR.sub("", text)).encode()


def prefixed(block: bytes, prefix: bytes) -> bytes:
    r"""Returns whole lines, each behind a prefix.

    >>> prefixed(b"a\nb\n", b"n1:0 | ")
    b'n1:0 | a\nn1:0 | b\n'
    """
    return prefix + block[:-1].replace(b"\n", b"\n" + prefix) + b"\n" if block else b""


def to_text(line: bytes) -> str:
    r"""Returns one line as it may be shown.

    >>> to_text(b"10%\r50%\r"), to_text(b"\xff")
    ('50%', '\ufffd')
    """
    return harmless_block(line).decode()


def harmless(text: str) -> str:
    r"""Returns words that a node chose as they may be shown; line ends stay.

    >>> harmless("no python\x1b[2J")
    'no python^[[2J'
    """
    return _CONTROL.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"^{chr(code ^ 64)}" if code < 128 else f"\\x{code:02x}"
