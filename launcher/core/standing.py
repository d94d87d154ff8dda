"""How a run stands, in one word, from what is written of it and whether somebody follows it."""

from __future__ import annotations

from collections.abc import Mapping

from launcher.core.hang import described, headline
from launcher.core.stacks import fold, odd_ranks
from launcher.core.state import RunState, StopReason

DETACHED = "detached"
# Its launcher was killed, or its machine went off: nobody follows it, and it should be followed.
ABANDONED = "abandoned"
# Where somebody wanted the end, no worker's end is a failure.
ORDERED = (StopReason.INTERRUPTED, StopReason.STOPPED, StopReason.TIMEOUT)


def standing(record: Mapping[str, object], *, is_followed: bool) -> str:
    """Returns the word.

    Args:
        record: what run.json says.
        is_followed: a launcher holds the run.

    >>> standing({"state": "ended", "exit_code": 0}, is_followed=False)
    'done'
    >>> standing({"state": "ended", "exit_code": 3}, is_followed=False)
    'failed (3)'
    >>> standing({"state": "running"}, is_followed=True)
    'running'
    >>> standing({"state": "running"}, is_followed=False)
    'abandoned'
    """
    if not record:
        return "unreadable"
    if record.get("state") == "ended":
        return _ended(record)
    if is_followed:
        return str(record.get("state") or "preparing")
    return DETACHED if record.get("detached") else ABANDONED


def _ended(record: Mapping[str, object]) -> str:
    if record.get("stop_reason") in ("interrupted", "stopped"):
        return "stopped"
    code = record.get("exit_code")
    return "done" if code == 0 else f"failed ({code})"


def first_error(state: RunState) -> dict[str, object] | None:
    """Returns what run.json says of the failure that ended a run, None where there was none."""
    if state.stop_reason is StopReason.HUNG and state.suspicion is not None:
        odd = odd_ranks(fold(state.suspicion.stacks))
        return {
            "rank": odd[0] if odd else None,
            "node": state.workers[odd[0]].node if odd and odd[0] in state.workers else None,
            "words": headline(state.suspicion),
            "lines": described(state.suspicion),
        }
    cause = None if state.stop_reason in ORDERED else state.root_cause
    if cause is None:
        return None
    worker = state.workers[cause.rank]
    said = [worker.raised.words] if worker.raised is not None else []
    return {
        "rank": cause.rank,
        "node": worker.node,
        "words": f"rank {cause.rank} on {worker.node} {cause.in_words}",
        "lines": [*said, *worker.facts],
    }


def lasted_s(record: Mapping[str, object], now: float) -> float | None:
    """Returns how long a run took, or has taken so far; None where nobody knows.

    >>> lasted_s({"started": 100.0}, 160.0), lasted_s({"started": 1.0, "elapsed_s": 9.5}, 160.0)
    (60.0, 9.5)
    """
    elapsed, started = record.get("elapsed_s"), record.get("started")
    if isinstance(elapsed, int | float):
        return float(elapsed)
    return max(0.0, now - started) if isinstance(started, int | float) else None
