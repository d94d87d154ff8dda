"""The index of times: found by halving, mended after a crash."""

from __future__ import annotations

import bisect
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.collect.log_times import RECORD, STEP_S, Times, TimesWriter

# Steps forward in time, in hundredths of a second, and in bytes.
GROWTH = st.lists(st.tuples(st.integers(-3, 30), st.integers(0, 20)), max_size=40)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(GROWTH, st.integers(-5, 900))
def test_what_came_since_a_time_begins_at_the_first_byte_that_did(
    tmp_path: Path, growth: list[tuple[int, int]], hundredths: int
) -> None:
    path = Path(tempfile.mkdtemp(dir=tmp_path)) / "times"
    writer, at, offset, moments = TimesWriter(path), 0.0, 0, []
    for step, count in growth:
        at += step / 100
        writer.note(offset, at)
        moments.append((at, offset))
        offset += count
    writer.close()
    times, since = Times(path), hundredths / 100
    try:
        kept = [times[number] for number in range(len(times))]
        assert kept == sorted(kept)
        assert all(moment in moments for moment in kept)
        found = times.offset_since(since)
        if not kept:
            assert found == 0
        else:
            first = bisect.bisect_left([moment for moment, _ in kept], since)
            assert found == (kept[first][1] if first < len(kept) else None)
        for number, (_, start) in enumerate(kept):
            assert times.last_before(start) == number
    finally:
        times.close()


def test_a_torn_record_is_cut_off_and_the_index_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "times"
    path.write_bytes(RECORD.pack(1.0, 0) + RECORD.pack(2.0, 10) + b"torn")
    times = Times(path)
    assert len(times) == 2
    writer = TimesWriter(path)
    writer.note(10, 3.0)
    writer.note(20, 2.0 + STEP_S / 2)
    writer.note(30, 3.0)
    writer.close()
    assert [times[number] for number in range(len(times))] == [(1.0, 0), (2.0, 10), (3.0, 30)]
    times.close()


def test_a_log_without_an_index_is_taken_from_its_beginning(tmp_path: Path) -> None:
    times = Times(tmp_path / "none")
    assert (len(times), times.offset_since(5.0), times.last_before(100)) == (0, 0, -1)
    times.close()
