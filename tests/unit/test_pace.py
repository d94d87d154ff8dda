"""Who is slower than the others: from reports and times alone."""

from __future__ import annotations

import pytest

from launcher.core.pace import LOOK_S, WINDOW_S, CaughtUp, FellBehind, Finding, Pace, PaceKeeper


class Race:
    """Ranks that step at given speeds; time goes on from look to look."""

    def __init__(self, **step_s: float) -> None:
        self.keeper = PaceKeeper()
        self.step_s = {int(name[1:]): value for name, value in step_s.items()}
        self.now = 1000.0
        self.done = dict.fromkeys(self.step_s, 0.0)
        self.own: dict[int, float] = {}
        self.pace: Pace | None = None
        for rank in self.step_s:
            self.keeper.report(rank, 0, self.now, self.now)

    def go(self, seconds: float) -> list[Finding]:
        found: list[Finding] = []
        for _ in range(round(seconds / LOOK_S)):
            begin = self.now
            for rank, step_s in self.step_s.items():
                steps = self.done[rank]
                while steps * step_s + step_s <= begin - 1000.0 + LOOK_S:
                    steps += 1
                    at = 1000.0 + steps * step_s
                    self.keeper.report(rank, int(steps), at, at, self.own.get(rank))
                self.done[rank] = steps
            self.now = begin + LOOK_S
            looked = self.keeper.look(self.now)
            assert looked is not None
            self.pace, more = looked
            found += more
        return found


def test_a_rank_that_is_slow_for_a_minute_is_named_once() -> None:
    race = Race(r0=1.0, r1=1.0, r2=1.25)
    assert race.go(WINDOW_S - LOOK_S) == []
    (found,) = race.go(WINDOW_S)
    assert isinstance(found, FellBehind)
    assert found.rank == 2
    assert found.step_s == pytest.approx(1.25, rel=0.02)
    assert found.median_s == pytest.approx(1.0, rel=0.02)
    assert race.pace is not None
    assert race.pace.slowest == 2
    assert race.pace.slowest_factor == pytest.approx(1.25, rel=0.02)


def test_of_two_ranks_the_faster_is_the_measure() -> None:
    (found,) = Race(r0=1.0, r1=1.3).go(2 * WINDOW_S)
    assert isinstance(found, FellBehind) and found.rank == 1


@pytest.mark.parametrize("factor", [1.0, 1.1, 1.19])
def test_a_little_slower_is_nothing(factor: float) -> None:
    assert Race(r0=0.5, r1=0.5, r2=0.5 * factor).go(3 * WINDOW_S) == []


def test_who_hurries_up_has_caught_up() -> None:
    race = Race(r0=0.5, r1=0.5, r2=1.0)
    assert [type(found) for found in race.go(WINDOW_S + LOOK_S)] == [FellBehind]
    race.step_s[2] = 0.5
    race.done[2] = race.done[0]
    assert race.go(2 * WINDOW_S) == [CaughtUp(2)]


def test_a_rank_that_reports_no_more_gets_slower() -> None:
    race = Race(r0=1.0, r1=1.0, r2=1.0)
    race.go(WINDOW_S)
    del race.step_s[2]
    (found,) = race.go(2 * LOOK_S)
    assert isinstance(found, FellBehind) and found.rank == 2


def test_who_reports_every_20_steps_is_not_slow_in_between() -> None:
    keeper = PaceKeeper()
    now = 0.0
    for second in range(200):
        now = float(second)
        keeper.report(0, second, now, now)
        if second % 20 == 0:
            keeper.report(1, second, now, now)
        looked = keeper.look(now)
        assert looked is None or looked[1] == []


def test_a_jobs_own_step_time_counts_before_the_shared_one() -> None:
    """In synchronous training everybody takes the time of the slowest."""
    race = Race(r0=1.0, r1=1.0, r2=1.0)
    race.own = {0: 0.5, 1: 0.5, 2: 1.0}
    (found,) = race.go(WINDOW_S + LOOK_S)
    assert found == FellBehind(2, 1.0, 0.5)


def test_a_single_rank_is_compared_with_nobody() -> None:
    race = Race(r0=1.0)
    assert race.go(WINDOW_S) == []
    assert race.pace is None


def test_a_rank_that_has_ended_is_not_waited_for() -> None:
    race = Race(r0=1.0, r1=1.0, r2=1.0)
    race.go(WINDOW_S)
    del race.step_s[2]
    race.keeper.forget([2, 99])
    assert race.go(WINDOW_S) == []


def test_steps_that_begin_anew_are_no_slowness() -> None:
    keeper = PaceKeeper()
    for step in (0, 100, 200, 0, 1, 2):
        keeper.report(0, step, float(step), 1.0)
        keeper.report(1, step, float(step), 1.0)
    assert keeper.look(5.0) is not None


def test_times_that_do_not_move_and_strange_own_times_are_left_out() -> None:
    keeper = PaceKeeper()
    for rank in (0, 1):
        keeper.report(rank, 0, 1.0, 0.0)
        keeper.report(rank, 5, 1.0, 0.0, float("nan"))
        keeper.report(rank, 6, 0.5, 0.0, float("inf"))
        keeper.report(rank, 6, 0.5, 0.0, -1.0)
    assert keeper.look(5.0) == (None, [])


def test_a_thousand_ranks() -> None:
    race = Race(**{f"r{rank}": 1.0 for rank in range(1000)})
    race.step_s[417] = 2.0
    found = race.go(WINDOW_S + LOOK_S)
    assert [item.rank for item in found] == [417]
