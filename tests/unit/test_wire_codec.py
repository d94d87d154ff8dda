"""Frames: whole however they are torn, refused where they are none, bounded in memory."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.wire import codec

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text(min_size=1).filter(lambda name: name not in ("t", "n"))
FRAMES = st.builds(
    codec.Frame, st.text(), st.dictionaries(NAMES, JSON_VALUES, max_size=4), st.binary()
)


def decoded(*pieces: bytes) -> list[codec.Frame]:
    decoder = codec.Decoder()
    return [frame for piece in pieces for frame in decoder.feed(piece)]


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(0, 4000), max_size=8))
def test_frames_come_back_however_the_bytes_are_torn(
    frames: list[codec.Frame], cuts: list[int]
) -> None:
    stream = b"".join(codec.encode(*frame) for frame in frames)
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[start:end] for start, end in itertools.pairwise(ends)]
    assert decoded(*pieces) == frames


def test_a_stream_torn_at_every_byte_gives_the_same_frames() -> None:
    frames = [
        codec.Frame("ping", {"sent": 1.5}, b""),
        codec.Frame("worker_output", {"rank": 0, "stream": "ä"}, b'{"t":"x"}\n\n'),
        codec.Frame("end_run", {}, b""),
    ]
    stream = b"".join(codec.encode(*frame) for frame in frames)
    for cut in range(len(stream) + 1):
        assert decoded(stream[:cut], stream[cut:]) == frames, cut
    assert decoded(*(bytes([byte]) for byte in stream)) == frames


def test_an_unfinished_frame_is_never_yielded() -> None:
    stream = codec.encode("worker_output", {"rank": 0}, b"12345")
    for cut in range(len(stream)):
        assert decoded(stream[:cut]) == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"null",
        b"[1,2]",
        b'"text"',
        b"{}",
        b'{"t":1}',
        b'{"t":null}',
        b'{"t":"x"',
        b'{"t":"\xff"}',
        b'{"t":"x","n":-1}',
        b'{"t":"x","n":true}',
        b'{"t":"x","n":false}',
        b'{"t":"x","n":1.0}',
        b'{"t":"x","n":"5"}',
        b'{"t":"x","n":null}',
        b'{"t":"x","n":%d}' % (codec.MAX_PAYLOAD_BYTES + 1),
        b'{"t":"x","n":1' + b"0" * 5000 + b"}",
        b"[" * 60_000,
        b'{"t":' * 10_000,
    ],
    ids=range(20),
)
def test_what_is_no_header_is_refused(line: bytes) -> None:
    with pytest.raises(codec.WireError):
        decoded(line + b"\n")


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_a_wire_error(data: bytes) -> None:
    try:
        frames = decoded(data + b"\n")
    except codec.WireError:
        return
    assert all(isinstance(frame.kind, str) for frame in frames)


def test_a_header_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    decoder = codec.Decoder()
    with pytest.raises(codec.WireError, match="no header line"):
        for _ in range(codec.MAX_HEADER_BYTES):
            list(decoder.feed(b"x" * 64))


def test_the_longest_header_passes_and_one_byte_more_does_not() -> None:
    room = codec.MAX_HEADER_BYTES - len(codec.encode("x", {"k": ""}))
    longest = codec.encode("x", {"k": "a" * room})
    assert len(longest) == codec.MAX_HEADER_BYTES
    assert decoded(longest) == [("x", {"k": "a" * room}, b"")]
    with pytest.raises(codec.WireError, match="header of x"):
        codec.encode("x", {"k": "a" * (room + 1)})
    with pytest.raises(codec.WireError):
        decoded(
            json.dumps({"t": "x", "k": "a" * (room + 1)}, separators=(",", ":")).encode() + b"\n"
        )


def test_a_payload_over_the_bound_is_not_sent() -> None:
    with pytest.raises(codec.WireError, match="payload of x"):
        codec.encode("x", {}, bytes(codec.MAX_PAYLOAD_BYTES + 1))


def test_a_long_stream_of_frames_takes_no_more_memory_than_one_of_them() -> None:
    decoder = codec.Decoder()
    stream = codec.encode("file_chunk", {"request": 1}, bytes(256 * 1024))
    tracemalloc.start()
    try:
        for _ in range(100):
            for start in range(0, len(stream), 100_000):
                for frame in decoder.feed(stream[start : start + 100_000]):
                    assert len(frame.payload) == 256 * 1024
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


def test_a_promised_payload_takes_no_memory_before_it_comes() -> None:
    decoder = codec.Decoder()
    tracemalloc.start()
    try:
        assert list(decoder.feed(b'{"t":"x","n":%d}\nabc' % codec.MAX_PAYLOAD_BYTES)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024
