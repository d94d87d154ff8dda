"""Runs that are only written down: their directories, as a launcher leaves them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RUN_ID = "lenet-20260102-030405-a1b2"
BEGAN = 1_767_322_800.0


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON objects, a line each."""
    with path.open("w") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")


def points(steps: int, ranks: int = 1) -> Iterable[dict[str, Any]]:
    """Yields reports: rank 0's loss falls, every rank says how far it is."""
    for step in range(1, steps + 1):
        for rank in range(ranks):
            point = {"time": BEGAN + step * 0.5, "rank": rank, "step": step, "total": steps}
            if rank == 0:
                point["loss"] = 2.3 * math.exp(-step / steps * 4) + 0.05 * math.sin(step / 7)
                point["images_per_s"] = 640.0 + 20 * math.sin(step / 50)
            yield point


def record_run(
    runs: Path,
    metrics: Iterable[Mapping[str, Any]] = (),
    *,
    events: Iterable[Mapping[str, Any]] = (),
    system: Iterable[Mapping[str, Any]] = (),
    workers: Mapping[int, str] | None = None,
    **record: Any,
) -> Path:
    """Writes a run that has ended; returns its directory.

    Args:
        runs: the directory of all runs.
        metrics: the lines of metrics.jsonl.
        events: those of events.jsonl.
        system: those of system.jsonl.
        workers: the node of each rank.
        record: what run.json has besides.
    """
    workers = workers or {0: "n1", 1: "n2"}
    top = runs / RUN_ID
    (top / "logs").mkdir(parents=True)
    (top / "checkpoints").mkdir()
    write_lines(top / "metrics.jsonl", metrics)
    write_lines(top / "events.jsonl", events)
    write_lines(top / "system.jsonl", system)
    nodes = {node: {"state": "ended", "problem": ""} for node in workers.values()}
    fields = {
        "id": RUN_ID, "job": "lenet", "started": BEGAN, "state": "ended", "exit_code": 0,
        "elapsed_s": 100.0, "ended": BEGAN + 100.0, "cluster": "lab", "world_size": len(workers),
        "nodes": nodes, "missing": [], "stop_reason": None,
        "workers": {
            str(rank): {"node": node, "state": "exited", "exit_code": 0, "signal": 0}
            for rank, node in workers.items()
        },
        **record,
    }  # fmt: skip
    (top / "run.json").write_text(json.dumps(fields))
    plan = {"cluster": "lab", "job": {"name": "lenet"}, "ranks": []}
    (top / "plan.json").write_text(json.dumps(plan))
    return top
