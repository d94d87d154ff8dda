"""Workers' bytes as lines for a terminal: never torn, never obeyed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.cli.lines import (
    MAX_LINE_BYTES,
    MAX_REST_BYTES,
    LineAssembler,
    harmless_block,
    max_line_bytes,
    prefixed,
    to_text,
)

# Bytes that matter to a terminal come often.
RAW = st.lists(
    st.sampled_from([b"\n", b"\r", b"\x1b", b"[", b"2J", b"31m", b"\x9b", b"\xc2\x9b", b"a", b"\t"])
    | st.binary(max_size=4),
    max_size=30,
).map(b"".join)


def lines_of(*pieces: bytes) -> list[str]:
    lines = LineAssembler()
    blocks = [*(lines.feed(piece) for piece in pieces), lines.rest()]
    assert all(block.endswith(b"\n") or not block for block in blocks)
    return b"".join(map(harmless_block, blocks)).decode().split("\n")[:-1]


@given(RAW, st.lists(st.integers(0, 60), max_size=5))
def test_lines_do_not_depend_on_how_the_bytes_are_torn(data: bytes, cuts: list[int]) -> None:
    ends = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[start:end] for start, end in itertools.pairwise(ends)]
    assert lines_of(*pieces) == lines_of(data)


@given(RAW)
def test_no_line_can_move_the_cursor_or_ask_the_terminal(data: bytes) -> None:
    for line in lines_of(data):
        assert all(char >= " " or char == "\t" for char in line)
        assert not any("\x7f" <= char <= "\x9f" for char in line)
        line.encode("utf-8")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        ("ä✓".encode(), "ä✓"),
        (b"windows\r", "windows"),
        (b"  0%\r 50%\r100%", "100%"),
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07", "^[]0;title^G"),
        (b"\x1b[6n", "^[[6n"),
        (b"\xc2\x9b31m", "\\x9b31m"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"a\tb", "a\tb"),
        (b"", ""),
    ],
)
def test_how_a_line_is_shown(raw: bytes, shown: str) -> None:
    assert to_text(raw) == shown


def test_a_line_that_never_ends_is_shown_in_pieces_and_not_kept() -> None:
    lines = LineAssembler()
    piece = b"x" * (MAX_LINE_BYTES // 2 + 1)
    shown = b"".join(lines.feed(piece) for _ in range(5))
    assert shown.count(b"x") + lines._rest_bytes == 5 * len(piece)
    assert lines._rest_bytes <= MAX_LINE_BYTES


def test_lines_without_an_end_take_bounded_memory_in_all() -> None:
    for streams in (0, 1, 2, 64, 2000):
        assert streams * max_line_bytes(streams) <= MAX_REST_BYTES
    assert max_line_bytes(2) == MAX_LINE_BYTES


@given(st.lists(RAW, max_size=6), st.integers(0, 30))
def test_many_lines_at_once_are_shown_as_each_alone(raws: list[bytes], width: int) -> None:
    lines = [raw.replace(b"\n", b"") for raw in raws]
    block, prefix = b"".join(line + b"\n" for line in lines), b"n" * width
    expected = "".join(f"{prefix.decode()}{to_text(line)}\n" for line in lines)
    assert prefixed(harmless_block(block), prefix).decode() == expected


def test_an_empty_line_is_a_line() -> None:
    assert lines_of(b"a\n\nb\n") == ["a", "", "b"]
