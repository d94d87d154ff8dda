"""Reports read back from metrics.jsonl, while it grows and whatever stands in it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from launcher.store.metrics_file import MetricsFile, Point, parse


def test_what_was_added_since(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    assert list(file.more()) == []
    line = b'{"time": 1.0, "rank": 0, "step": 1, "loss": 0.5}\n'
    path.write_bytes(line + line[:20])
    assert list(file.more()) == [Point(1.0, 0, 1, None, {"loss": 0.5})]
    assert list(file.more()) == []
    with path.open("ab") as writer:
        writer.write(line[20:])
    assert len(list(file.more())) == 1
    file.close()


@pytest.mark.parametrize(
    ("word", "value"), [('"nan"', math.nan), ('"inf"', math.inf), ('"-inf"', -math.inf)]
)
def test_words_are_numbers_again(word: str, value: float) -> None:
    point = parse(b'{"time": 1, "rank": 2, "x": %s}' % word.encode())
    assert point is not None
    assert repr(point.values["x"]) == repr(value)


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"3", b"{}", b'{"time": 1}', b'{"time": "x", "rank": 0}', b"\xff", b"[" * 99999],
    ids=range(8),
)
def test_what_is_no_report_is_none(line: bytes) -> None:
    assert parse(line) is None


def test_strange_steps_and_values_are_left_out() -> None:
    line = b'{"time": 1, "rank": 0, "step": "x", "total": 1%s, "a": [1], "b": true, "c": 1%s}'
    point = parse(line % (b"0" * 99, b"0" * 400))
    assert point == Point(1.0, 0, None, None, {"c": math.inf})
