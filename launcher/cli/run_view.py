"""How `ps` and `status` show runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from launcher.cli import summary
from launcher.cli.lines import harmless
from launcher.cli.render import console
from launcher.core.nodeset import fold, fold_ranks
from launcher.core.standing import ABANDONED, DETACHED, lasted_s, standing
from launcher.core.state import Exit
from launcher.store import run_history
from launcher.store.checkpoints import steps_of
from launcher.store.runs import KnownRun

_COLOURS = {"done": "green", "running": "cyan", "detached": "cyan", "stopped": "yellow"}
# Workers are listed one by one up to this many; of more, those that stand alike are one row.
MAX_WORKER_ROWS = 16


def span(time_s: float | None) -> str:
    """Returns a length of time for people.

    >>> span(42.3), span(3 * 60 + 5), span(26 * 3600), span(None)
    ('42 s', '3 min', '26 h', '-')
    """
    if time_s is None:
        return "-"
    for unit, length_s, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if time_s < most * length_s:
            return f"{time_s / length_s:.0f} {unit}"
    return f"{time_s / 86400:.0f} d"


def listed(runs: Sequence[KnownRun], now: float) -> list[dict[str, Any]]:
    """Returns the rows of `ps` as JSON values, newest first."""
    return [_row(run, now) for run in runs]


def _row(run: KnownRun, now: float) -> dict[str, Any]:
    record = run.record
    metrics = run_history.last_metrics(run.paths) or {}
    return {
        "id": run.run_id,
        "name": run.name or None,
        "job": record.get("job"),
        "state": standing({} if run.problem else record, is_followed=run.is_followed),
        "exit_code": record.get("exit_code"),
        "nodes": len(record.get("nodes") or {}) or None,
        "workers": record.get("world_size"),
        "started": run.started or None,
        "age_s": round(max(0.0, now - run.started), 3) if run.started else None,
        "step": metrics.get("step"),
        "total": metrics.get("total"),
        "followed": run.is_followed,
        "directory": str(run.top),
    }


def show_runs(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table of `ps`."""
    columns = ("run", "name", "state", "nodes", "workers", "age", "step")
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        cells = (row["id"], row["name"] or "-", row["state"], row["nodes"], row["workers"])
        table.add_row(*map(_cell, cells), span(row["age_s"]), escape(_step(row)))
    console().print(table)


def _cell(value: object) -> str:
    text = escape("-" if value is None else str(value))
    colour = _COLOURS.get(text, "red" if text.startswith(("failed", ABANDONED, "unread")) else "")
    return f"[{colour}]{text}[/]" if colour else text


def _step(row: Mapping[str, Any]) -> str:
    if row["step"] is None:
        return "-"
    return f"{row['step']}/{row['total']}" if row["total"] is not None else str(row["step"])


def described(run: KnownRun, now: float) -> dict[str, Any]:
    """Returns what `status` tells of one run as JSON values.

    Raises:
        StoreError: events.jsonl cannot be read.
    """
    record = run.record
    return {
        **_row(run, now),
        "elapsed_s": lasted_s(record, now),
        "attempt": record.get("attempt", 0),
        "restarts": record.get("restarts", []),
        "stop_reason": record.get("stop_reason"),
        "detached": run.is_detached,
        "node_states": record.get("nodes") or {},
        "worker_states": {
            str(rank): worker
            for rank, worker in run_history.workers(run.paths, record.get("workers") or {}).items()
        },
        "metrics": run_history.last_metrics(run.paths),
        "checkpoints": list(steps_of(run.top)),
        "first_error": record.get("first_error"),
        "missing": record.get("missing", []),
    }


def show_status(told: Mapping[str, Any]) -> None:
    """Prints what `status` tells."""
    out = console()
    out.print(f"[bold]{escape(told['id'])}[/]  {_cell(told['state'])}  {_since(told)}")
    for line in _facts(told):
        out.print(escape(harmless(line)))
    out.print(_workers_table(told["worker_states"]))
    for line in _errors(told):
        out.print(escape(harmless(line)), style="red")


def _since(told: Mapping[str, Any]) -> str:
    if told["started"] is None:
        return ""
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told["started"]))
    return f"{span(told['elapsed_s'])}, started {began}"


def _facts(told: Mapping[str, Any]) -> list[str]:
    lines = [f"job          {told['job']}" + (f" ({told['name']})" if told["name"] else "")]
    if told["state"] == DETACHED:
        lines.append("             goes on by itself; `flowlaunch attach` follows it")
    for restart in told["restarts"]:
        lines.append(f"restarted    after attempt {restart['attempt']}: {restart['cause']}")
    metrics = told["metrics"]
    if metrics is not None:
        at = f"step {_step(told)}" if told["step"] is not None else ""
        own = {key: value for key, value in metrics.items() if key not in _NO_VALUES}
        values = [f"{summary.label(key)} {summary.value(value)}" for key, value in own.items()]
        lines.append("reported     " + "  ".join(filter(None, [at, *values])))
    steps = told["checkpoints"]
    if steps:
        here = summary.counted(len(steps), "checkpoint")
        where = Path(told["directory"]) / "checkpoints"
        lines.append(f"checkpoints  {here} here, the newest of step {steps[-1]}; in {where}")
    lines.append(f"logs         {Path(told['directory']) / 'logs'}")
    return lines


_NO_VALUES = ("time", "rank", "step", "total")


def _workers_table(workers: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("ranks", "node", "state", box=None, header_style="bold", pad_edge=False)
    rows = [(rank, str(each.get("node")), stands(each)) for rank, each in workers.items()]
    if len(rows) > MAX_WORKER_ROWS:
        alike: dict[str, list[tuple[str, str]]] = {}
        for rank, node, state in rows:
            alike.setdefault(state, []).append((rank, node))
        rows = [_alike(each, state) for state, each in alike.items()]
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _alike(workers: Sequence[tuple[str, str]], state: str) -> tuple[str, str, str]:
    nodes = dict.fromkeys(node for _, node in workers)
    return fold_ranks(int(rank) for rank, _ in workers), fold(nodes), state


def stands(worker: Mapping[str, Any]) -> str:
    """Returns how a worker stands, in words."""
    if worker.get("state") != "exited":
        return str(worker.get("state") or "waiting")
    end = Exit(0, worker.get("exit_code"), int(worker.get("signal") or 0), 0.0, False)
    return end.in_words


def _errors(told: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{name}: {node['problem']}"
        for name, node in told["node_states"].items()
        if node.get("problem")
    ]
    first = told["first_error"]
    if first:
        lines.append(f"first error: {first['words']}")
        lines += [f"  {line}" for line in first.get("lines", [])]
    lines += [f"missing: {line}" for line in told["missing"]]
    if told["state"] == ABANDONED:
        lines.append("nobody follows it: `flowlaunch attach` goes on, `flowlaunch stop` ends it")
    return lines
