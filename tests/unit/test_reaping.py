"""What may be ended and removed on nodes: never what somebody still looks after."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from launcher.core import reaping as core

RUN = "lenet-20260101-120000-a1b2"
WORKER = core.FoundProcess(7, "n1", "worker", 0, "python job.py")
AGENT = core.FoundProcess(6, "n1", "agent", -1, "agent")
ENDED = core.KnownStanding(has_ended=True, is_followed=False)
GONE = core.KnownStanding(has_ended=False, is_followed=False)
FOLLOWED = core.KnownStanding(has_ended=False, is_followed=True)


def found(*standings: core.AgentStanding, agent: bool = True, host: str = "n1") -> core.FoundRun:
    return core.FoundRun(RUN, host, (WORKER, *([AGENT] if agent else [])), standings)


def agent(
    linked: bool = False, silent_s: float = 300.0, detached: bool = False
) -> core.AgentStanding:
    return core.AgentStanding(linked, silent_s, detached)


def ends(
    *seen: core.FoundRun, known: core.KnownStanding | None = None, named: bool = False
) -> bool:
    return core.judge(RUN, seen, known, is_named=named).ends


def test_a_followed_run_is_left_alone_though_its_agents_are_dead() -> None:
    assert not ends(found(agent=False), known=FOLLOWED)


def test_a_run_that_a_launcher_elsewhere_follows_is_left_alone() -> None:
    assert not ends(found(agent(linked=True)))
    assert not ends(found(agent(linked=True)), known=GONE)
    assert not ends(found(agent=False), found(agent(linked=True), host="n2"))


def test_a_detached_run_goes_on_until_it_has_ended() -> None:
    assert not ends(found(agent(detached=True)))
    assert not ends(found(agent(detached=True)), known=GONE)
    assert ends(found(agent(detached=True)), known=ENDED)


def test_a_run_whose_launcher_died_is_ended() -> None:
    assert ends(found(agent(silent_s=0.0)), known=GONE)
    assert ends(found(agent=False), known=GONE)


def test_an_unknown_run_is_ended_once_its_launcher_is_not_coming_back() -> None:
    assert ends(found(agent()))
    assert ends(found(agent=False))
    assert not ends(found(agent(silent_s=core.RECONNECT_S - 1)))


def test_an_unknown_run_whose_agent_is_stuck_is_ended_only_by_name() -> None:
    assert not ends(found())
    assert ends(found(), named=True)


STANDINGS = st.builds(agent, st.booleans(), st.floats(0, 1000), st.booleans())
FOUND = st.builds(
    lambda standings, has_agent: found(*standings, agent=has_agent),
    st.lists(STANDINGS, max_size=3),
    st.booleans(),
)
KNOWN = st.sampled_from([None, ENDED, GONE, FOLLOWED])


@given(seen=st.lists(FOUND, min_size=1, max_size=4), known=KNOWN)
def test_nothing_that_is_looked_after_is_ended_unless_it_is_named(
    seen: list[core.FoundRun], known: core.KnownStanding | None
) -> None:
    linked = any(each.linked for one in seen for each in one.standings)
    if linked or known is FOLLOWED:
        assert not ends(*seen, known=known)
    assert ends(*seen, known=known, named=True)
    assert core.judge(RUN, seen, known).reason


def resting(count: int) -> list[core.FoundRun]:
    return [
        core.FoundRun(f"r{days}", "n1", directory=f"/r{days}", age_s=days * core.DAY_S)
        for days in range(count)
    ]


def removable(rows: list[core.FoundRun], keep: int, days: float) -> list[str]:
    return core.removable(rows, {}, keep=keep, older_than_s=days * core.DAY_S)


def test_directories_go_by_age_and_by_number() -> None:
    assert removable(resting(6), 2, 3) == ["r3", "r4", "r5"]
    assert removable(resting(6), 5, 3) == ["r5"]
    assert removable(resting(6), 0, 0) == ["r0", "r1", "r2", "r3", "r4", "r5"]
    assert removable(resting(6), 100, 0) == []


def test_the_directory_of_a_run_that_lives_somewhere_stays() -> None:
    living = core.FoundRun("r1", "n1", (WORKER,), (), "/r1", 1e9)
    assert core.removable([living], {}, keep=0, older_than_s=0) == []
    elsewhere = {"r1": core.Verdict(False, "a launcher follows it")}
    assert core.removable(resting(2), elsewhere, keep=0, older_than_s=0) == ["r0"]


@given(
    ages=st.lists(st.floats(0, 1e9), max_size=30),
    keep=st.integers(0, 40),
    older_than_s=st.floats(0, 1e9),
)
def test_the_newest_always_stay(ages: list[float], keep: int, older_than_s: float) -> None:
    rows = [
        core.FoundRun(f"r{number}", "n1", directory="/r", age_s=age_s)
        for number, age_s in enumerate(ages)
    ]
    gone = set(core.removable(rows, {}, keep=keep, older_than_s=older_than_s))
    stay = [row for row in rows if row.run not in gone]
    assert len(stay) >= min(keep, len(rows))
    assert all(row.age_s >= older_than_s for row in rows if row.run in gone)
