"""`flowlaunch logs` over directories of runs: what is chosen, from where on, and how it looks."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from launcher.cli.main import flowlaunch
from launcher.collect.log_reader import LogName, LogReader, find_logs
from launcher.collect.logs import LogCollector, LogGap, LogGapClosed
from launcher.core.paths import RunPaths
from launcher.store.atomic import replace_json
from tests.support.deadline import wait_until
from tests.support.lab import ROOT

NODES = {0: "gpu1", 1: "gpu1", 2: "gpu2"}
T0 = 1_700_000_000.0


@dataclass
class Run:
    """A run's directory, and the collector that fills it."""

    runs: Path
    run_id: str = "job-20260102-030405-a1b2"
    record: dict[str, Any] = field(default_factory=lambda: {"state": "running", "started": T0})

    def __post_init__(self) -> None:
        self.top = self.runs / self.run_id
        (self.top / "logs").mkdir(parents=True)
        self.paths = RunPaths(self.top)
        self.update()
        ranks = [{"rank": rank, "node": node} for rank, node in NODES.items()]
        replace_json(Path(self.paths.plan), {"ranks": ranks})
        self.logs = LogCollector(self.paths, NODES, self._on_gap)
        self.sizes: dict[tuple[int, str], int] = {}

    def update(self, **changes: object) -> None:
        self.record.update(changes, id=self.run_id)
        replace_json(Path(self.paths.record), self.record)

    def _on_gap(self, node: str, gap: LogGap | LogGapClosed) -> None:
        kind = "log_gap" if isinstance(gap, LogGap) else "log_gap_closed"
        self.event(kind, node=node, **gap._asdict())

    def event(self, kind: str, **fields: object) -> None:
        with Path(self.paths.events).open("a") as file:
            file.write(json.dumps({"event": kind, **fields}) + "\n")

    def write(self, rank: int, data: bytes, at: float = T0, stream: str = "stdout") -> None:
        offset = self.sizes.get((rank, stream), 0)
        self.logs.append(NODES[rank], rank, stream, offset, data, at)
        self.sizes[rank, stream] = offset + len(data)

    def show(self, *options: str) -> str:
        return self.said(*options)[0]

    def said(self, *options: str) -> tuple[str, str]:
        """Returns what goes to stdout and to stderr."""
        words = ["logs", self.run_id, "--runs-dir", str(self.runs), *options]
        done = CliRunner().invoke(flowlaunch, words)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout, done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path / "runs")
    yield made
    made.logs.close()


@pytest.fixture
def three(run: Run) -> Run:
    """Three workers that said something."""
    run.write(0, b"loading\n", T0)
    run.write(1, b"loading\n", T0 + 0.1)
    run.write(2, b"loading\n", T0 + 0.05)
    run.write(0, b"rank 0 loss 3\nrank 0 ", T0 + 1)
    run.write(2, b"rank 2 \xff\x1b[2J\n", T0 + 2, "stderr")
    run.write(0, b"loss 2\n", T0 + 3)
    run.write(1, b"10%\r20%\rno end", T0 + 4)
    return run


def test_one_stream_after_the_other_by_rank(three: Run) -> None:
    assert three.show() == (
        "gpu1:0 | loading\ngpu1:0 | rank 0 loss 3\ngpu1:0 | rank 0 loss 2\n"
        "gpu1:1 | loading\ngpu1:1 | no end\n"
        "gpu2:2 | loading\ngpu2:2 | rank 2 \ufffd^[[2J\n"
    )


def test_by_time_when_merged_and_a_line_counts_when_it_is_whole(three: Run) -> None:
    assert three.show("--merge").splitlines() == [
        "gpu1:0 | loading",
        "gpu2:2 | loading",
        "gpu1:1 | loading",
        "gpu1:0 | rank 0 loss 3",
        "gpu2:2 | rank 2 \ufffd^[[2J",
        "gpu1:0 | rank 0 loss 2",
        "gpu1:1 | no end",
    ]


def test_equal_lines_fold(three: Run) -> None:
    assert three.show("--fold").splitlines()[0] == "gpu[1-2]:0-2 | loading"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--rank", "1-2", "--tail", "1"], ["gpu1:1 | no end", "gpu2:2 | loading"]),
        (["--node", "gpu2", "--stream", "stdout"], ["gpu2:2 | loading"]),
        (["--grep", r"loss \d$"], ["gpu1:0 | rank 0 loss 3", "gpu1:0 | rank 0 loss 2"]),
        (["--grep", "loss", "--tail", "1"], ["gpu1:0 | rank 0 loss 2"]),
        (["--merge", "--tail", "2"], ["gpu1:0 | rank 0 loss 2", "gpu1:1 | no end"]),
        (["--merge", "--tail", "1", "--grep", "load"], ["gpu1:1 | loading"]),
        (["--tail", "0"], []),
        (["--since", str(T0 + 2.5)], ["gpu1:0 | rank 0 loss 2", "gpu1:1 | no end"]),
        (["--since", str(T0 + 9)], []),
        (["--since", "1s"], []),
        (["--grep", "nothing"], []),
    ],
)
def test_what_is_chosen(three: Run, options: list[str], shown: list[str]) -> None:
    expected = [line for line in shown if line]
    if options == ["--rank", "1-2", "--tail", "1"]:
        expected.append("gpu2:2 | rank 2 \ufffd^[[2J")
    assert three.show(*options).splitlines() == expected


def test_json_has_every_byte(three: Run) -> None:
    lines = [json.loads(line) for line in three.show("--json", "--rank", "2").splitlines()]
    assert lines[0] == {
        "time": T0 + 0.05, "node": "gpu2", "rank": 2, "stream": "stdout", "line": "loading",
    }  # fmt: skip
    assert base64.b64decode(lines[1]["base64"]) == b"rank 2 \xff\x1b[2J"


def test_raw_is_the_bytes(three: Run) -> None:
    assert three.show("--raw", "--rank", "1") == "loading\n10%\r20%\rno end"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rank", "x"], "bad range 'x'"),
        (["--rank", "7"], "rank 7 is not in job-20260102-030405-a1b2: there are 0 to 2"),
        (["--node", "gpu[1-3]"], "is on gpu3: there are gpu[1-2]"),
        (["--grep", "("], "unterminated subpattern"),
        (["--since", "yesterday"], "'yesterday' is no time: write 10m"),
        (["--raw", "--json"], "only one of"),
    ],
)
def test_a_wrong_option_says_what_is_right(three: Run, options: list[str], words: str) -> None:
    done = CliRunner().invoke(
        flowlaunch,
        ["logs", three.run_id, "--runs-dir", str(three.runs), *options],
        standalone_mode=False,
    )
    assert words in str(done.exception)


def test_what_is_missing_is_passed_over_until_it_is_here(run: Run) -> None:
    run.write(0, b"one\n")
    run.logs.append("gpu1", 0, "stdout", 8, b"three\n")
    shown, told = run.said()
    assert shown == "gpu1:0 | one\ngpu1:0 | three\n"
    assert "gpu1: rank 0's stdout: bytes 4 to 8 are missing; `flowlaunch logs --sync`" in told
    run.logs.append("gpu1", 0, "stdout", 4, b"two\n")
    assert run.said() == ("gpu1:0 | one\ngpu1:0 | two\ngpu1:0 | three\n", "")


def test_what_a_rank_wrote_on_a_node_that_it_left_is_shown_with_that_name(run: Run) -> None:
    run.write(1, b"new\n")
    left = Path(run.paths.log("lost", 1, "stdout"))
    left.parent.mkdir()
    left.write_bytes(b"old\n")
    assert run.show("--rank", "1").splitlines() == ["gpu1:1 | new", "lost:1 | old"]
    assert run.show("--node", "lost") == "lost:1 | old\n"


def test_a_run_without_a_line_shows_none(run: Run) -> None:
    assert run.show() == ""
    assert run.show("--merge", "--tail", "3") == ""


def test_the_end_of_a_huge_log_is_found_from_its_end(run: Run) -> None:
    """A hole of 10 GB costs no disk, and would take long to read."""
    run.write(0, b"first\n", T0)
    log = Path(run.paths.log("gpu1", 0, "stdout"))
    size = 10_000_000_000
    os.truncate(log, size)
    with log.open("ab") as file:
        file.write(b"\n" + b"".join(b"line %d\n" % number for number in range(20)))
    run.logs.close()
    run.logs = LogCollector(run.paths, NODES)
    run.logs.append("gpu1", 0, "stdout", log.stat().st_size, b"last\n", T0 + 60)
    name = LogName(0, "gpu1", False)
    reader = LogReader(run.paths, name)
    try:
        reader.seek_tail(3, lambda line: True)
        assert b"".join(piece.data for piece in reader.pieces()) == b"line 18\nline 19\nlast\n"
        reader.offset = 0
        reader.seek_since(T0 + 30)
        assert b"".join(piece.data for piece in reader.pieces()) == b"last\n"
    finally:
        reader.close()


@pytest.mark.parametrize("length", [10, 70_000, 3_000_000])
def test_long_lines_are_found_from_the_end(run: Run, length: int) -> None:
    lines = [b"%d" % number * length for number in range(4)]
    run.write(0, b"\n".join(lines))
    reader = LogReader(run.paths, LogName(0, "gpu1", False))
    try:
        for count in range(6):
            reader.offset = 0
            reader.seek_tail(count, lambda line: True)
            found = b"".join(piece.data for piece in reader.pieces())
            assert found == b"\n".join(lines[max(0, 4 - count) :])
    finally:
        reader.close()


def test_other_files_are_no_logs(run: Run) -> None:
    run.write(1, b"x\n", stream="stderr")
    for name in ("gpu1/rank-0.stdout.log.gz", "gpu1/rank-x.stdout.log", "notes"):
        (run.top / "logs" / name).write_text("no")
    assert find_logs(run.paths) == [LogName(1, "gpu1", True)]


class Following:
    """`logs -f`, and what it has printed so far."""

    def __init__(self, run: Run, *options: str) -> None:
        self.printed = run.runs / "printed"
        words = ["logs", run.run_id, "--runs-dir", str(run.runs), "-f", *options]
        with self.printed.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launcher.cli.main", *words],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def wait(self, words: str) -> None:
        wait_until(lambda: words in self.printed.read_text(), words, 60.0)


def test_following_ends_with_the_run_and_sees_new_workers(run: Run) -> None:
    run.write(0, b"before\n")
    following = Following(run)
    try:
        following.wait("gpu1:0 | before")
        following.wait(f"no launcher follows the run; `flowlaunch attach {run.run_id}` does")
        run.write(0, b"half")
        run.write(2, b"a new one\n")
        following.wait("gpu2:2 | a new one")
        # Another launcher takes over.
        run.logs.close()
        run.logs = LogCollector(run.paths, NODES)
        run.logs.resume([])
        run.write(0, b" and half\n")
        following.wait("gpu1:0 | half and half")
        run.event("run_phase_changed", phase="collecting")
        following.wait("flowlaunch | the run is collecting")
        assert following.process.poll() is None
        run.write(1, b"the last of it", time.time())
    finally:
        run.update(state="ended", exit_code=0)
        assert following.process.wait(60) == 0
    assert "gpu1:1 | the last of it" in following.printed.read_text()
    assert "flowlaunch | the run has ended, exit code 0" in following.printed.read_text()
