"""Finds the checkpoint that a person means."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jobs.command import DataError

_STEP = re.compile(r"^step-\d{8,}$")


def find_checkpoint(what: str) -> str:
    """Returns the directory ``step-<8 digits>`` that `what` names.

    Args:
        what: that directory itself, a folder of them, a run's directory, or a run's id (looked
            for under $FLOWLAUNCH_RUNS, else ./runs); of several checkpoints the newest is taken.

    Raises:
        DataError: there is none.
    """
    runs = Path(os.environ.get("FLOWLAUNCH_RUNS") or "runs")
    for place in (Path(what), runs / what):
        if (place / "MANIFEST.json").is_file():
            return str(place)
        for folder in (place / "checkpoints", place):
            newest = _newest(folder)
            if newest is not None:
                return str(newest)
    raise DataError(
        f"no checkpoint in {what}: give a directory step-<8 digits>, a folder of them, or a run "
        f"(looked for in {runs.resolve()})"
    )


def _newest(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    steps = [entry for entry in folder.iterdir() if _STEP.match(entry.name)]
    return max(steps, key=lambda entry: int(entry.name[5:]), default=None)
