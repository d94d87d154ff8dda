"""Which checkpoints stay by the rules of a manifest or of a command line. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from launcher.core.model import BestPolicy, CheckpointPolicy, Extreme
from launcher.errors import UsageError

_NO_RULE = CheckpointPolicy()


def kept_steps(
    steps: Collection[int], policy: CheckpointPolicy, values: Mapping[int, float]
) -> set[int]:
    """Returns the steps of the checkpoints that stay.

    One stays where any of the rules keeps it; without a rule all do, and the newest always does.

    Args:
        steps: the steps of all checkpoints.
        policy: the rules.
        values: the metric of `keep_best` at each step, where it is known.

    >>> sorted(kept_steps([10, 20, 30, 40], CheckpointPolicy(keep=1, keep_every=20), {}))
    [20, 40]
    """
    if policy == _NO_RULE:
        return set(steps)
    ordered = sorted(steps)
    kept = set(ordered[-(policy.keep or 1) :])
    if policy.keep_every is not None:
        kept |= {step for step in ordered if step % policy.keep_every == 0}
    if policy.keep_best is not None:
        kept |= _best(ordered, policy.keep_best.mode, values)
    return kept


def _best(steps: Collection[int], mode: Extreme, values: Mapping[int, float]) -> set[int]:
    """Returns the step with the best value, the latest of equal ones; none where none is known."""
    known = [step for step in steps if step in values and not math.isnan(values[step])]
    sign = -1 if mode is Extreme.MIN else 1
    return {max(known, key=lambda step: (sign * values[step], step))} if known else set()


def policy_of(
    keep: int | None, keep_every: int | None, keep_best: str | None
) -> CheckpointPolicy | None:
    """Returns the rules that a command line names, None where it names none.

    Raises:
        UsageError: `keep_best` is no METRIC, METRIC:min or METRIC:max.

    >>> policy_of(None, None, "accuracy:max").keep_best
    BestPolicy(metric='accuracy', mode=<Extreme.MAX: 'max'>)
    """
    if keep is None and keep_every is None and keep_best is None:
        return None
    best = None
    if keep_best is not None:
        metric, _, mode = keep_best.partition(":")
        if not metric or mode not in ("", "min", "max"):
            raise UsageError(f"--keep-best {keep_best}: expected METRIC, METRIC:min or METRIC:max")
        best = BestPolicy(metric, Extreme(mode or "min"))
    return CheckpointPolicy(keep, keep_every, best)


def policy_to_json(policy: CheckpointPolicy) -> dict[str, Any]:
    """Returns the rules as JSON values, as they stand in a manifest."""
    best = policy.keep_best
    return {
        "keep": policy.keep,
        "keep_every": policy.keep_every,
        "keep_best": None if best is None else {"metric": best.metric, "mode": best.mode.value},
    }


def policy_from_json(fields: Mapping[str, Any]) -> CheckpointPolicy:
    """Returns the rules that `policy_to_json` gave."""
    best = fields.get("keep_best")
    return CheckpointPolicy(
        keep=fields.get("keep"),
        keep_every=fields.get("keep_every"),
        keep_best=None if best is None else BestPolicy(best["metric"], Extreme(best["mode"])),
    )


def planned(plan: Mapping[str, Any]) -> CheckpointPolicy:
    """Returns the rules that a run was started with.

    Raises:
        UsageError: it was started without any.
    """
    policy = policy_from_json(plan.get("checkpoints") or {})
    if policy == _NO_RULE:
        raise UsageError(
            "nothing says which checkpoints to keep",
            hint="give --keep N, --keep-every N or --keep-best METRIC",
        )
    return policy
