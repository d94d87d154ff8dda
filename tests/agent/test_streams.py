"""Growing files, read behind their writer."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.agent.sightings import MOST_SIGHTINGS, Sightings
from launcher.agent.streams import LineReader, Stream

# A write of so many bytes, a read, or a jump to some offset.
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "read", "seek", "digest"]), st.integers(0, 30)),
    max_size=30,
)
here = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@here
@given(STEPS)
def test_the_hash_is_over_all_bytes_wherever_reading_jumped(
    tmp_path: Path, steps: list[tuple[str, int]]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    stream, written = Stream(str(path), 7), b""
    try:
        for what, count in steps:
            if what == "write":
                data = bytes((len(written) + i) % 251 for i in range(count))
                with path.open("ab") as file:
                    file.write(data)
                written += data
            elif what == "read":
                offset = stream.offset
                assert stream.read() == written[offset : offset + 7]
            elif what == "seek":
                stream.seek(count)
                assert stream.offset == min(count, len(written))
            else:
                stream.digest()
            assert stream.is_drained() == (stream.offset >= len(written))
        assert stream.digest() == (len(written), hashlib.sha256(written).hexdigest())
    finally:
        stream.close()


@here
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_lines_come_once_and_whole_however_they_are_written(
    tmp_path: Path, data: bytes, cuts: list[int]
) -> None:
    path = tmp_path / "report"
    path.write_bytes(b"")
    reader, lines, start = LineReader(str(path)), [], 0
    try:
        for end in [*sorted(cuts), len(data)]:
            with path.open("ab") as file:
                file.write(data[start:end])
            start = max(start, end)
            lines += reader.read_lines()
        assert lines == data.split(b"\n")[:-1]
        assert reader.read_lines() == []
    finally:
        reader.close()


def test_a_negative_offset_is_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"abc")
    stream = Stream(str(tmp_path / "log"), 10)
    try:
        stream.seek(-5)
        assert stream.read() == b"abc"
    finally:
        stream.close()


def test_what_is_elsewhere_costs_no_disk_and_every_offset_stays(tmp_path: Path) -> None:
    """Under a writer that appends, as a worker does."""
    path = tmp_path / "log"
    data = bytes(index % 251 for index in range(300_000))
    writer = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    stream = Stream(str(path), 1 << 20)
    try:
        os.write(writer, data)
        before = path.stat().st_blocks
        stream.release(200_000, keep_bytes=100_000)
        assert stream.released == 0, "nothing is given back that was not hashed"
        assert stream.read() == data
        stream.release(200_000, keep_bytes=400_000)
        assert stream.released == 0, "as much may stay"
        stream.release(200_000, keep_bytes=100_000)
        assert 0 < stream.released <= 200_000
        assert before - path.stat().st_blocks >= 190_000 // 512
        os.write(writer, b"more")
        assert stream.read() == b"more"
        stream.seek(0)
        assert stream.offset == stream.released, "what is gone is not sent as zeros"
        assert stream.read() == (data + b"more")[stream.released :]
        whole = data + b"more"
        assert stream.digest() == (len(whole), hashlib.sha256(whole).hexdigest())
        later = Stream(str(path), 1 << 20)
        try:
            assert later.offset == later.released == stream.released
            assert later.digest() == (len(whole), ""), "a later agent cannot prove what is gone"
            assert later.read() == whole[later.released :]
        finally:
            later.close()
    finally:
        stream.close()
        os.close(writer)


def test_bytes_of_different_times_come_apart(tmp_path: Path) -> None:
    path = tmp_path / "log"
    stream = Stream(str(path), 100)
    try:
        for clock, piece in ((1.0, b"early"), (2.0, b"late"), (2.0, b"")):
            with path.open("ab") as file:
                file.write(piece)
            stream.look(clock)
        found = []
        while data := stream.read():
            found.append((stream.seen.clock_of(stream.offset - len(data)), data))
        assert found == [(1.0, b"early"), (2.0, b"late")]
    finally:
        stream.close()


def test_small_writes_travel_together_however_often_they_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "log"
    stream = Stream(str(path), 1000)
    try:
        for moment in range(60):
            with path.open("ab") as file:
                file.write(b"x")
            stream.look(moment / 1000)
        pieces = []
        while data := stream.read():
            pieces.append(len(data))
        assert pieces == [30, 30]
    finally:
        stream.close()


@pytest.mark.parametrize("looks", [1, 2, MOST_SIGHTINGS, MOST_SIGHTINGS + 1, 5 * MOST_SIGHTINGS])
def test_moments_are_bounded_and_never_too_early(looks: int) -> None:
    dice = random.Random(looks)
    growth = [dice.randrange(6) for _ in range(looks)]
    seen, size, clocks = Sightings(), 0, []
    for moment, count in enumerate(growth, start=1):
        size += count
        clocks += [float(moment)] * count
        seen.note(size, float(moment))
    assert len(seen._sizes) <= MOST_SIGHTINGS
    told = [seen.clock_of(offset) for offset in range(size)]
    assert told == sorted(told)
    assert all(known >= clock for known, clock in zip(told, clocks, strict=True))
    recent = range(max(0, size - MOST_SIGHTINGS // 2), size)
    assert all(told[offset] == clocks[offset] for offset in recent)
    assert seen.clock_of(size) == 0.0
