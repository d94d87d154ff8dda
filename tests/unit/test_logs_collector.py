"""The workers' bytes here: exactly those, once each, proven, and nowhere else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.collect.logs import LogCollector, LogGap, LogGapClosed
from launcher.core.paths import RunPaths
from launcher.errors import StoreError


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[LogCollector]:
    collector = LogCollector(RunPaths(tmp_path / "run"), {0: "n1", 1: "n2"})
    yield collector
    collector.close()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))))
def test_pieces_that_overlap_or_come_twice_are_kept_once(
    tmp_path: Path, data: bytes, pieces: list[tuple[int, int]]
) -> None:
    top = Path(tempfile.mkdtemp(dir=tmp_path))
    logs, here = LogCollector(RunPaths(top), {0: "n1"}), b""
    try:
        for start, size in pieces:
            if start <= len(here):
                fresh = logs.append("n1", 0, "stdout", start, data[start : start + size])
                assert fresh == data[len(here) : start + size]
                here += fresh
        assert logs.tail("n1", 0, "stdout", 1000) == here
        assert logs.problem_with("n1", 0, "stdout", len(here), sha(here)) == ""
    finally:
        logs.close()


def test_each_stream_has_a_file(logs: LogCollector, tmp_path: Path) -> None:
    logs.append("n1", 0, "stdout", 0, b"out\xff")
    logs.append("n2", 1, "stderr", 0, b"err")
    logs.append("n2", 1, "report", 0, b"{}\n")
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in files if path.suffix == ".log"} == {
        Path("run/logs/n1/rank-0.stdout.log"),
        Path("run/logs/n2/rank-1.stderr.log"),
    }
    assert {path.suffix for path in files} == {".log", ".times", ".jsonl"}
    assert (tmp_path / "run/reports/n2/rank-1.jsonl").read_bytes() == b"{}\n"
    assert logs.problem_with("n2", 1, "report", 3, sha(b"{}\n")) == ""


class Gaps:
    """What a collector told of gaps."""

    def __init__(self, top: Path) -> None:
        self.told: list[tuple[str, LogGap | LogGapClosed]] = []
        self.logs = LogCollector(RunPaths(top), {0: "n1"}, self._take)

    def _take(self, node: str, gap: LogGap | LogGapClosed) -> None:
        self.told.append((node, gap))


def test_a_gap_is_told_once_and_closed_by_what_was_missing(tmp_path: Path) -> None:
    gaps = Gaps(tmp_path)
    logs = gaps.logs
    try:
        logs.append("n1", 0, "stdout", 0, b"abc")
        assert logs.append("n1", 0, "stdout", 5, b"fg") == b"fg"
        assert gaps.told == [("n1", LogGap(0, "stdout", [(3, 5)]))]
        problem = logs.problem_with("n1", 0, "stdout", 7, sha(b"abcdefg"))
        assert problem == "n1: rank 0's stdout: bytes 3 to 5 are missing"
        assert logs.offsets() == {"n1": {"0": {"stdout": 3}}}
        assert logs.append("n1", 0, "stdout", 2, b"cdefgh") == b"deh"
        assert gaps.told[1:] == [("n1", LogGapClosed(0, "stdout"))]
        assert logs.problem_with("n1", 0, "stdout", 8, sha(b"abcdefgh")) == ""
    finally:
        logs.close()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), max_size=12),
)
def test_whatever_comes_in_whatever_order_stands_at_its_place(
    tmp_path: Path, data: bytes, pieces: list[tuple[int, int]]
) -> None:
    gaps = Gaps(Path(tempfile.mkdtemp(dir=tmp_path)))
    here: set[int] = set()
    try:
        for start, size in pieces:
            piece = data[start : start + size]
            if piece:
                places = set(range(start, start + len(piece)))
                assert len(gaps.logs.append("n1", 0, "stdout", start, piece)) == len(places - here)
                here |= places
        whole = next((place for place in range(len(data)) if place not in here), len(data))
        if here:
            assert gaps.logs.offsets()["n1"]["0"]["stdout"] == whole
        gaps.logs.append("n1", 0, "stdout", whole, data[whole:])
        assert gaps.logs.problem_with("n1", 0, "stdout", len(data), sha(data)) == ""
    finally:
        gaps.logs.close()


def test_a_later_launcher_goes_on_where_the_files_end(tmp_path: Path) -> None:
    first = Gaps(tmp_path)
    first.logs.append("n1", 0, "stdout", 0, b"abc")
    first.logs.append("n1", 0, "stdout", 5, b"fg")
    first.logs.append("n1", 0, "stderr", 0, b"xyz")
    first.logs.close()
    lines = [
        b'{"event": "worker_started", "rank": 0}',
        b'{"event": "log_gap", "node": "n1", "rank": 0, "stream": "stdout", "missing": [[3, 5]]}',
        b'{"event": "log_gap", "node": "n1", "rank": 0, "stream": "stderr", "missing": [[1, 2]]}',
        b'{"event": "log_gap_closed", "node": "n1", "rank": 0, "stream": "stderr"}',
    ]
    second = Gaps(tmp_path)
    try:
        second.logs.resume(lines)
        assert second.logs.offsets() == {"n1": {"0": {"stdout": 3, "stderr": 3}}}
        assert second.logs.append("n1", 0, "stdout", 3, b"defgh") == b"deh"
        assert second.logs.append("n1", 0, "stderr", 0, b"xyz!") == b"!"
        assert second.logs.problem_with("n1", 0, "stdout", 8, sha(b"abcdefgh")) == ""
        assert second.logs.problem_with("n1", 0, "stderr", 4, sha(b"xyz!")) == ""
        assert "are not those" in second.logs.problem_with("n1", 0, "stderr", 4, sha(b"xyz?"))
    finally:
        second.logs.close()


def test_what_is_synced_is_what_is_whole(logs: LogCollector) -> None:
    logs.append("n1", 0, "stdout", 0, b"abc")
    logs.append("n2", 1, "stdout", 4, b"abc")
    assert logs.sync() == {"n1": {"0": {"stdout": 3}}, "n2": {"1": {"stdout": 0}}}


@pytest.mark.parametrize(
    ("size", "digest", "problem"),
    [
        (4, sha(b"abc"), "n1: rank 0's stdout: 3 of 4 bytes are here"),
        (3, sha(b"abd"), "n1: rank 0's stdout: the bytes here are not those"),
    ],
)
def test_what_is_not_here_whole_is_named(
    logs: LogCollector, size: int, digest: str, problem: str
) -> None:
    logs.append("n1", 0, "stdout", 0, b"abc")
    assert logs.problem_with("n1", 0, "stdout", size, digest).startswith(problem)


def test_a_stream_of_no_bytes_is_whole(logs: LogCollector) -> None:
    assert logs.problem_with("n1", 0, "stderr", 0, sha(b"")) == ""
    assert logs.tail("n1", 0, "stderr", 10) == b""


@pytest.mark.parametrize(
    ("rank", "stream"),
    [
        (0, "../../../../outside"),
        (0, "/../../../../../outside"),
        (0, "x/../../../../outside"),
        (0, "core"),
        (0, ""),
        (9, "stdout"),
        (-1, "stdout"),
    ],
)
def test_a_stream_that_no_worker_has_is_refused_and_nothing_is_written(
    logs: LogCollector, tmp_path: Path, rank: int, stream: str
) -> None:
    with pytest.raises(StoreError):
        logs.append("n1", rank, stream, 0, b"x")
    with pytest.raises(StoreError):
        logs.problem_with("n1", rank, stream, 0, "")
    assert list(tmp_path.rglob("*")) == []


def test_the_tail_is_the_end(logs: LogCollector) -> None:
    logs.append("n1", 0, "stderr", 0, bytes(range(200)))
    assert logs.tail("n1", 0, "stderr", 5) == bytes(range(195, 200))


def test_a_disk_that_is_full_is_an_error_that_names_the_file(
    logs: LogCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.append("n1", 0, "stdout", 0, b"abc")
    stream = logs._streams["n1", 0, "stdout"]
    full = os.open("/dev/full", os.O_WRONLY)
    old, stream._fd = stream._fd, full
    os.close(old)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        logs.append("n1", 0, "stdout", 3, b"def")
    assert caught.value.hint
    assert caught.value.exit_code == 74


FILLED = """
import hashlib, resource, signal, sys
from pathlib import Path
from launcher.collect.logs import LogCollector
from launcher.core.paths import RunPaths
from launcher.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
logs, data = LogCollector(RunPaths(Path(sys.argv[1])), {0: "n1"}), bytes(1500)
try:
    logs.append("n1", 0, "stdout", 0, data)
except StoreError as error:
    print("refused:", error.message)
else:
    problem = logs.problem_with("n1", 0, "stdout", 1500, hashlib.sha256(data).hexdigest())
    print(problem or "whole")
"""


def test_a_file_that_takes_only_a_part_is_never_called_whole(tmp_path: Path) -> None:
    """The kernel writes what still fits and says how much that was, without an error."""
    done = subprocess.run(
        [sys.executable, "-c", FILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "refused: File too large"
