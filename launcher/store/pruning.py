"""Dropping checkpoints that no rule keeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from launcher.core.model import CheckpointPolicy
from launcher.core.paths import RunPaths
from launcher.core.retention import kept_steps
from launcher.errors import StoreError
from launcher.store.atomic import sync
from launcher.store.checkpoints import read_checkpoint, steps_of
from launcher.store.run_record import store_error


def superfluous(paths: RunPaths, policy: CheckpointPolicy) -> list[Path]:
    """Returns the checkpoints here that no rule keeps, oldest first.

    Raises:
        StoreError: the run's directory cannot be read.
    """
    known = steps_of(Path(paths.top))
    values = metric_at(paths, policy.keep_best.metric, known) if policy.keep_best else {}
    kept = kept_steps(known, policy, values)
    return [directory for step, directory in known.items() if step not in kept]


def metric_at(paths: RunPaths, metric: str, known: Mapping[int, Path]) -> dict[int, float]:
    """Returns a metric at each checkpoint's step.

    What was saved with the checkpoint counts; else what rank 0 reported last until that step.
    """
    found = _last_reports(paths, metric, list(known))
    for step, directory in known.items():
        try:
            value = read_checkpoint(directory).published.meta.get(metric)
        except StoreError:
            continue  # damaged: `verify` is there for that
        if isinstance(value, int | float):
            found[step] = float(value)
    return found


def _last_reports(paths: RunPaths, metric: str, steps: list[int]) -> dict[int, float]:
    found: dict[int, float] = {}
    nearest = dict.fromkeys(steps, -1)
    try:
        lines = Path(paths.metrics).read_bytes().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            report = json.loads(line)
            at, value = int(report["step"]), float(report[metric])
        except (ValueError, KeyError, TypeError):
            continue  # it says nothing of this metric, or is torn
        if report.get("rank") != 0:
            continue
        for step in steps:
            if nearest[step] <= at <= step:
                nearest[step], found[step] = at, value
    return found


def remove(directory: Path) -> None:
    """Removes a checkpoint here: first its name, so that no half of it is ever seen.

    Raises:
        StoreError: it cannot be removed.
    """
    going = directory.with_name(f".going-{directory.name}")
    try:
        shutil.rmtree(going, ignore_errors=True)
        directory.rename(going)
        sync(directory.parent)
        shutil.rmtree(going)
    except OSError as error:
        raise store_error(error, directory) from None
