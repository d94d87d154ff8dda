"""What of that which runs left on nodes may be ended or removed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

DAY_S = 86400.0
# A launcher whose connection broke is back within this time, or waits for a machine that is off.
RECONNECT_S = 20.0


@dataclass(frozen=True)
class FoundProcess:
    """A living process of a run. `kind` is "agent" or "worker"; a worker's children count as it."""

    pid: int
    node: str
    kind: str
    rank: int
    command: str


@dataclass(frozen=True)
class AgentStanding:
    """What an agent said of its run.

    Attributes:
        linked: a launcher is connected.
        silent_s: how long none was heard of.
        detached: the run needs none.
    """

    linked: bool
    silent_s: float
    detached: bool


@dataclass(frozen=True)
class FoundRun:
    """What there is of one run on one node.

    Attributes:
        host: the node that was asked.
        directory: where the run has its files there, "" where it has none.
        age_s: how long nothing in it was written to.
        bytes: how much it holds.
    """

    run: str
    host: str
    processes: tuple[FoundProcess, ...] = ()
    standings: tuple[AgentStanding, ...] = ()
    directory: str = ""
    age_s: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class KnownStanding:
    """What the runs directory of this machine says of a run."""

    has_ended: bool
    is_followed: bool


@dataclass(frozen=True)
class Verdict:
    """Whether a run's processes are to be ended, and why, or why not."""

    ends: bool
    reason: str


def judge(
    run: str,
    found: Sequence[FoundRun],
    known: KnownStanding | None,
    *,
    is_named: bool = False,
) -> Verdict:
    """Returns whether the processes of a run are left over, or belong to a run that goes on.

    Args:
        run: the run's id.
        found: what every node said; other runs are not looked at.
        known: what this machine knows of it, None where it is none of its runs.
        is_named: the person named this run, and wants its end whatever it does.
    """
    if is_named:
        return Verdict(True, "it was named")
    if known is not None and known.is_followed:
        return Verdict(False, "a launcher on this machine follows it")
    mine = [each for each in found if each.run == run]
    standings = [standing for each in mine for standing in each.standings]
    if any(standing.linked for standing in standings):
        return Verdict(False, "a launcher follows it")
    has_ended = known is not None and known.has_ended
    if any(standing.detached for standing in standings) and not has_ended:
        return Verdict(False, "it is detached and goes on by itself")
    if has_ended:
        return Verdict(True, "it has ended")
    if known is not None:
        return Verdict(True, "its launcher is gone")
    return _judge_unknown(mine, standings)


def _judge_unknown(mine: Sequence[FoundRun], standings: Sequence[AgentStanding]) -> Verdict:
    has_agent = any(process.kind == "agent" for each in mine for process in each.processes)
    if has_agent and not standings:
        return Verdict(False, "its agent does not answer; name the run to end it all the same")
    silent_s = min((standing.silent_s for standing in standings), default=None)
    if silent_s is not None and silent_s < RECONNECT_S:
        return Verdict(False, f"its launcher was heard of {silent_s:.0f} s ago and may come back")
    return Verdict(True, "no launcher looks after it")


def removable(
    found: Iterable[FoundRun],
    verdicts: Mapping[str, Verdict],
    *,
    keep: int,
    older_than_s: float,
) -> list[str]:
    """Returns the runs whose directories on one node may go.

    Args:
        found: what there is on that node.
        verdicts: by run, of those that have processes anywhere; a run that goes on keeps its own.
        keep: the newest so many stay, however old.
        older_than_s: of the others, those to which nobody has written for longer.
    """
    resting = [
        each for each in found if each.directory and not each.processes and each.run not in verdicts
    ]
    resting.sort(key=lambda each: (each.age_s, each.run))
    return [each.run for each in resting[max(0, keep) :] if each.age_s >= older_than_s]
