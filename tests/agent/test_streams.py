"""Growing files, read behind their writer."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
