"""The buffer of a channel: every byte once and in order, and waiting as paramiko's own does."""

from __future__ import annotations

import random
import threading
import tracemalloc
from typing import Any

import pytest
from paramiko.buffered_pipe import BufferedPipe, PipeTimeout

from launcher.transport.ssh_buffer import PieceBuffer


def test_pieces_come_out_in_order_however_they_are_read() -> None:
    draw = random.Random(0)
    sent = draw.randbytes(300_000)
    buffer = PieceBuffer()

    def feed() -> None:
        start = 0
        while start < len(sent):
            size = draw.randrange(1, draw.choice((100, 10_000)))
            buffer.feed(sent[start : start + size])
            start += size
        buffer.close()

    thread = threading.Thread(target=feed)
    thread.start()
    got = b""
    while data := buffer.read(1 + len(got) % 7000):
        assert len(data) <= 1 + len(got) % 7000
        got += data
    thread.join()
    assert got == sent
    assert buffer.read(1) == b""


@pytest.mark.parametrize("kind", [PieceBuffer, BufferedPipe])
def test_it_answers_as_paramikos_own(kind: type[Any]) -> None:
    buffer = kind()
    with pytest.raises(PipeTimeout):
        buffer.read(1, timeout=0.0)
    with pytest.raises(PipeTimeout):
        buffer.read(1, timeout=0.01)
    buffer.feed(b"abc")
    buffer.feed(b"de")
    assert (len(buffer), buffer.read_ready()) == (5, True)
    assert buffer.read(4) == b"abcd"
    assert (buffer.read(4), buffer.read_ready(), len(buffer)) == (b"e", False, 0)
    buffer.feed(b"fg")
    buffer.close()
    assert (buffer.read(9), buffer.read(1, timeout=None)) == (b"fg", b"")


def test_small_pieces_take_no_more_memory_than_they_hold() -> None:
    buffer = PieceBuffer()
    tracemalloc.start()
    for _ in range(100_000):
        buffer.feed(bytes(bytearray(b"x")))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(buffer), held < 200_000) == (100_000, True)


def test_a_reader_that_waits_is_woken_by_the_end() -> None:
    buffer, got = PieceBuffer(), []
    thread = threading.Thread(target=lambda: got.append(buffer.read(1)))
    thread.start()
    buffer.close()
    thread.join(10)
    assert got == [b""]
