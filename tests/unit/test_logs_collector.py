"""The workers' bytes here: exactly those, once each, proven, and nowhere else."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.collect.logs import LogCollector
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
                fresh = logs.append(0, "stdout", start, data[start : start + size])
                assert fresh == data[len(here) : start + size]
                here += fresh
        assert logs.tail(0, "stdout", 1000) == here
        assert logs.problem_with(0, "stdout", len(here), sha(here)) == ""
    finally:
        logs.close()


def test_each_stream_has_a_file_and_reports_have_none(logs: LogCollector, tmp_path: Path) -> None:
    logs.append(0, "stdout", 0, b"out\xff")
    logs.append(1, "stderr", 0, b"err")
    logs.append(1, "report", 0, b"{}\n")
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        Path("run/logs/n1/rank-0.stdout.log"),
        Path("run/logs/n2/rank-1.stderr.log"),
    }
    assert logs.problem_with(1, "report", 3, sha(b"{}\n")) == ""


def test_a_gap_is_an_error_that_names_the_stream(logs: LogCollector) -> None:
    logs.append(0, "stdout", 0, b"abc")
    with pytest.raises(StoreError, match="n1: rank 0's stdout: 2 bytes are missing at 3"):
        logs.append(0, "stdout", 5, b"x")


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
    logs.append(0, "stdout", 0, b"abc")
    assert logs.problem_with(0, "stdout", size, digest).startswith(problem)


def test_a_stream_of_no_bytes_is_whole(logs: LogCollector) -> None:
    assert logs.problem_with(0, "stderr", 0, sha(b"")) == ""
    assert logs.tail(0, "stderr", 10) == b""


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
        logs.append(rank, stream, 0, b"x")
    with pytest.raises(StoreError):
        logs.problem_with(rank, stream, 0, "")
    assert list(tmp_path.rglob("*")) == []


def test_the_tail_is_the_end(logs: LogCollector) -> None:
    logs.append(0, "stderr", 0, bytes(range(200)))
    assert logs.tail(0, "stderr", 5) == bytes(range(195, 200))


def test_a_disk_that_is_full_is_an_error_that_names_the_file(
    logs: LogCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.append(0, "stdout", 0, b"abc")
    stream = logs._streams[0, "stdout"]
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    old, stream._file = stream._file, full
    assert old is not None
    old.close()
    with pytest.raises(StoreError, match="No space left on device") as caught:
        logs.append(0, "stdout", 3, b"def")
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
    logs.append(0, "stdout", 0, data)
except StoreError as error:
    print("refused:", error.message)
else:
    problem = logs.problem_with(0, "stdout", 1500, hashlib.sha256(data).hexdigest())
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
