"""Equal lines of many ranks as one: nothing lost, nothing out of order, nothing held for long."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from launcher.core.folding import HOLD_S, FoldedLine, Folder

RANKS = 4
# Who writes which line, and how much later than the one before, in hundredths of a second.
SPOKEN = st.lists(
    st.tuples(st.integers(0, RANKS - 1), st.sampled_from("abc"), st.integers(0, 15)), max_size=60
)


@given(SPOKEN)
def test_every_rank_says_all_its_lines_in_order_and_none_waits_longer(
    spoken: list[tuple[int, str, int]],
) -> None:
    folder, now, shown, said = Folder(RANKS), 0.0, [], defaultdict(list)
    waiting_since: dict[int, float] = {}
    for rank, text, later in spoken:
        now += later / 100
        shown += folder.due(now)
        assert all(now - group.since < HOLD_S for group in folder._groups)
        folder.feed(rank, "stdout", text.encode(), now)
        said[rank].append(text.encode())
        waiting_since.setdefault(len(shown), now)
    shown += folder.rest()
    for rank in range(RANKS):
        assert [line.text for line in shown if rank in line.ranks] == said[rank]
    assert all(len(set(line.ranks)) == len(line.ranks) for line in shown)
    assert not folder._alike, "nothing is kept of what was shown"


def test_a_traceback_of_all_folds_into_one_and_what_differs_stays_apart() -> None:
    lines = [b"Traceback (most recent call last):", b'  File "job.py"', b"ValueError: x"]
    folder = Folder(3)
    for rank in range(3):
        for line in [*lines, b"rank %d" % rank]:
            folder.feed(rank, "stderr", line, 0.01 * rank)
    assert folder.due(0.02) == [FoldedLine("stderr", line, (0, 1, 2)) for line in lines]
    assert folder.due(HOLD_S) == [FoldedLine("stderr", b"rank 0", (0,))]
    assert [line.text for line in folder.rest()] == [b"rank 1", b"rank 2"]


def test_one_worker_is_never_held() -> None:
    folder = Folder(1)
    folder.feed(0, "stdout", b"same", 0.0)
    folder.feed(0, "stdout", b"same", 0.0)
    assert [line.text for line in folder.due(0.0)] == [b"same", b"same"]


def test_stdout_and_stderr_are_not_one() -> None:
    folder = Folder(2)
    folder.feed(0, "stdout", b"x", 0.0)
    folder.feed(1, "stderr", b"x", 0.0)
    assert [line.ranks for line in folder.rest()] == [(0,), (1,)]
