"""What a terminal shows of many workers, and of one that says too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from launcher.cli.worker_lines import (
    LEAST_BURST,
    LINES_A_SECOND,
    MAX_BURST,
    MAX_SHOWN_CHARS,
    ShownLine,
    WorkerLines,
)

NODES = {rank: f"gpu{rank // 2 + 1}" for rank in range(8)}


def worker_lines(nodes: dict[int, str] | None = None) -> WorkerLines:
    return WorkerLines(nodes or {0: "n1"}, lambda rank, stream: f"logs/{rank}.{stream}")


def said(lines: list[ShownLine]) -> list[str]:
    return [f"{line.label}{line.text}" for line in lines]


def test_what_all_say_is_one_line_with_a_short_label() -> None:
    lines = worker_lines(NODES)
    for rank in NODES:
        lines.feed(rank, "stdout", b"loading data\n", 0.0)
    lines.feed(3, "stderr", b"careful\n", 0.0)
    assert said(lines.due(0.0)) == ["gpu[1-4]:0-7 | loading data"]
    assert said(lines.due(0.1)) == []
    assert said(lines.due(0.2)) == ["gpu2:3 | careful"]


def test_a_thousand_workers_that_say_the_same_are_no_flood() -> None:
    lines = worker_lines({rank: f"n{rank}" for rank in range(1000)})
    for number in range(5):
        for rank in range(1000):
            lines.feed(rank, "stdout", b"step %d\n" % number, 0.0)
    assert said(lines.due(0.0)) == [f"n[0-999]:0-999 | step {number}" for number in range(5)]


def test_a_flood_is_counted_and_the_files_are_named() -> None:
    lines = worker_lines(NODES)
    for rank in (0, 1):
        lines.feed(rank, "stdout", b"".join(b"%d %d\n" % (rank, n) for n in range(10_000)), 0.0)
    shown = said(lines.due(1.0))
    assert len(shown) == 2 * LEAST_BURST + 1
    assert shown[-1] == (
        f"… {20_000 - 2 * LEAST_BURST:,} lines are not shown; "
        "everything is in logs/0.stdout and 1 other file"
    )
    lines.feed(0, "stdout", b"more\n" * 10_000, 1.1)
    lines.feed(2, "stdout", b"quiet\n", 1.1)
    lines.feed(0, "stderr", b"Traceback\n", 1.1)
    shown = said(lines.due(1.4))
    assert "gpu2:2 | quiet" in shown, "a loud worker hides no other"
    assert "gpu1:0 | Traceback" in shown, "nor what it says on stderr"


def test_after_a_flood_lines_are_shown_again() -> None:
    lines = worker_lines()
    lines.feed(0, "stdout", b"x\n" * (MAX_BURST + 10), 0.0)
    lines.due(0.0)
    lines.feed(0, "stdout", b"y\n" * (LINES_A_SECOND + 1), 1.0)
    shown = said(lines.due(1.0))
    assert shown[:-1] == ["n1:0 | y"] * LINES_A_SECOND
    assert "… 1 line is not shown" in shown[-1]


@given(st.lists(st.integers(0, 5 * MAX_BURST), max_size=4), st.integers(1, 50))
def test_every_line_is_shown_or_counted_and_none_is_torn(counts: list[int], cut: int) -> None:
    lines, shown, total, whole = worker_lines(), [], 0, set()
    for turn, count in enumerate(counts):
        data = b"".join(b"line %d\n" % number for number in range(count))
        whole |= {f"line {number}" for number in range(count)}
        total += count
        lines.feed(0, "stdout", data[:cut], float(turn))
        lines.feed(0, "stdout", data[cut:], float(turn))
        shown += lines.due(float(turn))
    shown += lines.rest(float(len(counts)))
    notes = [line.text for line in shown if not line.label]
    plain = [line.text for line in shown if line.label]
    skipped = sum(int(note.split()[1].replace(",", "")) for note in notes)
    assert set(plain) <= whole
    assert len(plain) + skipped == total


def test_a_line_of_a_megabyte_is_one_line_that_says_where_the_rest_is() -> None:
    lines = worker_lines()
    lines.feed(0, "stdout", b"x" * 1_000_000 + b"\n", 0.0)
    (line,) = lines.due(0.0)
    more = 1_000_000 - MAX_SHOWN_CHARS
    assert line.text == "x" * MAX_SHOWN_CHARS + f" … {more} more characters in logs/0.stdout"


def test_what_has_no_end_is_shown_at_the_end() -> None:
    lines = worker_lines()
    lines.feed(0, "stdout", b"50%\r100%", 0.0)
    assert lines.due(1.0) == []
    assert said(lines.rest(1.0)) == ["n1:0 | 100%"]
