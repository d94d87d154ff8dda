"""What workers report: torn, foreign and hostile lines mean nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.collect.reports import MAX_LINE_BYTES, Metrics, ReportReader
from launcher.core.state import WorkerPhase

LINE = b'{"kind":"metrics","time":1.5,"step":10,"total":20,"values":{"loss":0.5}}\n'


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[ReportReader]:
    made = ReportReader(tmp_path / "metrics.jsonl")
    yield made
    made.close()


def kept(reader: ReportReader) -> list[dict[str, object]]:
    return [json.loads(line) for line in reader._path.read_bytes().splitlines()]


def test_metrics_are_told_and_kept(reader: ReportReader) -> None:
    assert list(reader.feed("n1", 3, LINE)) == [Metrics(1.5, 3, 10, 20, {"loss": 0.5})]
    assert kept(reader) == [{"time": 1.5, "rank": 3, "step": 10, "total": 20, "loss": 0.5}]


def test_how_far_a_worker_is(reader: ReportReader) -> None:
    data = b'{"kind":"importing"}\n{"kind":"joined"}\n{"kind":"checkpoint","step":1}\n'
    assert list(reader.feed("n1", 0, data)) == [WorkerPhase.IMPORTING, WorkerPhase.JOINED]
    assert kept(reader) == []


def test_lines_come_whole_wherever_they_are_torn(reader: ReportReader) -> None:
    data = LINE * 2
    for cut in range(len(data)):
        found = [*reader.feed("n1", 0, data[:cut]), *reader.feed("n1", 0, data[cut:])]
        assert len(found) == 2, cut


def test_ranks_do_not_mix(reader: ReportReader) -> None:
    assert list(reader.feed("n1", 0, LINE[:20])) == []
    assert len(list(reader.feed("n1", 1, LINE))) == 1
    assert len(list(reader.feed("n1", 0, LINE[20:]))) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"metrics"',
        b"{}",
        b'{"kind":[]}',
        b'{"kind":{}}',
        b'{"kind":"metrics"}',
        b'{"kind":"metrics","time":"now","values":{}}',
        b'{"kind":"metrics","time":1,"values":[1]}',
        b'{"kind":"metrics","time":1,"step":"x","values":{}}',
        b'{"kind":"metrics","time":1,"step":1e999,"values":{}}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind":"metrics","time":1' + b"0" * 5000 + b',"values":{}}',
    ],
    ids=range(16),
)
def test_what_is_no_report_means_nothing(reader: ReportReader, line: bytes) -> None:
    assert list(reader.feed("n1", 0, line + b"\n" + LINE)) == [
        Metrics(1.5, 0, 10, 20, {"loss": 0.5})
    ]


def test_a_report_without_values_is_one_too(reader: ReportReader) -> None:
    """`report(step=3)` writes none."""
    found = list(reader.feed("n1", 0, b'{"kind":"metrics","time":1.0,"step":3}\n'))
    assert found == [Metrics(1.0, 0, 3, None, {})]


def test_a_value_cannot_take_the_place_of_rank_or_time(reader: ReportReader) -> None:
    line = b'{"kind":"metrics","time":1.0,"step":3,"values":{"rank":9,"time":8,"step":7}}\n'
    list(reader.feed("n1", 0, line))
    (fields,) = kept(reader)
    assert (fields["rank"], fields["time"], fields["step"]) == (0, 1.0, 3)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_taken(reader: ReportReader, pieces: list[bytes]) -> None:
    for piece in pieces:
        list(reader.feed("n1", 0, piece))
    list(reader.feed("n1", 0, b"\n"))
    assert len(list(reader.feed("n1", 0, LINE))) == 1


def test_a_line_that_never_ends_takes_no_memory_without_bound(reader: ReportReader) -> None:
    for _ in range(5):
        list(reader.feed("n1", 0, bytes(MAX_LINE_BYTES)))
    assert len(reader._rests["n1", 0]) <= MAX_LINE_BYTES
