"""The page of a run: one HTML file that needs nothing else, and no network.

Everything that comes from a node, a job or a file is escaped, and the page's own policy lets no
script run but the one that it was made with.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher import __version__
from launcher.cli import charts, summary
from launcher.cli.lines import harmless
from launcher.cli.report_data import MOST_EVENTS, Happened, MetricCurves, NodeLoad, RunData
from launcher.cli.run_view import span, stands
from launcher.core.envelope import Envelope
from launcher.core.nodeset import fold
from launcher.core.pace import FACTOR
from launcher.core.standing import lasted_s, standing

# All curves together have so many points, and one alone at most so many buckets.
_POINTS = 30_000
_MOST_NODES = 64
_MOST_ROWS = 200
_MOST_JSON_CHARS = 200_000
_CSS = Path(__file__).with_name("report.css")
_JS = Path(__file__).with_name("report.js")
# What a timeline shows as a mark, with its word.
_MARKS = {
    "checkpoint_stored": ("mark good", "checkpoint"),
    "checkpoint_failed": ("mark bad", "checkpoint lost"),
    "worker_fell_behind": ("mark slow", "fell behind"),
    "link_lost": ("mark bad", "link lost"),
    "node_failed": ("mark bad", "node failed"),
    "node_unusable": ("mark bad", "node failed"),
    "run_restarted": ("mark bad", "restart"),
}


def page(data: RunData, now: float) -> str:
    """Returns the page of a run."""
    script = _JS.read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    title = text(data.run.name or data.run.run_id)
    sections = [
        _head(data, now), _first_error(data), _curves(data), _pace(data), _health(data),
        _timeline(data, now), _checkpoints(data), _workers(data), _plan(data),
    ]  # fmt: skip
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{_CSS.read_text()}</style></head>\n<body><main>"
        f"{''.join(sections)}</main><footer>made by flowlaunch {__version__} on {made}</footer>"
        f"<script>{script}</script></body></html>\n"
    )


def text(value: object) -> str:
    """Returns anything as it may stand in the page.

    >>> text("<b>&")
    '&lt;b&gt;&amp;'
    """
    return html.escape(harmless(str(value)))


def _section(title: str, body: str, *, name: str) -> str:
    return f'<section id="{name}"><h2>{title}</h2>{body}</section>' if body else ""


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; the cells are HTML already."""
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


# What a person looks for first


def _head(data: RunData, now: float) -> str:
    run, record = data.run, data.run.record
    word = standing({} if run.problem else record, is_followed=run.is_followed)
    kind = {"done": "good", "running": "busy", "detached": "busy"}.get(word, "bad")
    sign = {"good": "✓", "busy": "…", "bad": "✗"}[kind]
    name = f'<p class="sub">{text(run.run_id)}</p>' if run.name else ""
    return (
        f'<header><h1>{text(run.name or run.run_id)} <span class="badge {kind}">{sign} '
        f"{text(word)}</span></h1>{name}<p class=sub>{_sentence(data, now)}</p></header>"
        f'<dl class="tiles">{_tiles(data)}</dl>'
    )


def _sentence(data: RunData, now: float) -> str:
    record = data.run.record
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(data.began)) if data.began else "?"
    nodes = len(record.get("nodes") or {})
    words = [
        f"{text(record.get('job', '?'))} on cluster {text(record.get('cluster', '?'))}",
        f"{summary.counted(int(record.get('world_size') or 0), 'worker')} on "
        f"{summary.counted(nodes, 'node')}",
        f"started {began}",
        f"took {span(lasted_s(record, now))}",
    ]
    code = record.get("exit_code")
    words += [f"exit code {text(code)}"] if code is not None else []
    return " · ".join(words)


def _tiles(data: RunData) -> str:
    found: list[tuple[str, str, str]] = []
    if data.step is not None:
        total = f" of {data.total}" if data.total is not None else ""
        found.append(("step", str(data.step), total))
    for name, curves in list(_by_interest(data.metrics))[:4]:
        if curves.newest is not None:
            value = summary.value(curves.newest.values[name])
            found.append((summary.label(name), value, f"at step {curves.newest.step}"))
    found.append(("checkpoints", str(len(data.checkpoints)), "here, verified"))
    restarts = data.run.record.get("restarts") or []
    if restarts:
        found.append(("restarts", str(len(restarts)), ""))
    return "".join(
        f"<div><dt>{text(label)}</dt><dd>{text(value)}<small>{text(more)}</small></dd></div>"
        for label, value, more in found
    )


def _first_error(data: RunData) -> str:
    record = data.run.record
    problems = [
        f"<p><b>{text(name)}</b>: {text(node.get('problem'))}</p>"
        for name, node in (record.get("nodes") or {}).items()
        if isinstance(node, Mapping) and node.get("problem")
    ]
    first = record.get("first_error")
    if isinstance(first, Mapping):
        lines = first.get("lines")
        tail = "\n".join(map(str, lines)) if isinstance(lines, list) else ""
        words = f"rank {first.get('rank')} on {first.get('node')} {first.get('how', '')}"
        problems.insert(
            0, f"<p><b>{text(words)}</b></p>" + (f"<pre>{text(tail)}</pre>" if tail else "")
        )
    missing = record.get("missing")
    if isinstance(missing, list):
        problems += [f"<p>missing: {text(line)}</p>" for line in missing[:_MOST_ROWS]]
    body = f'<div class="error">{"".join(problems)}</div>' if problems else ""
    return _section("First error", body, name="error")


# Curves


def _by_interest(metrics: Mapping[str, MetricCurves]) -> list[tuple[str, MetricCurves]]:
    """Returns the metrics: the loss first, then speeds, then the others as they were reported."""

    def order(item: tuple[str, MetricCurves]) -> int:
        return 0 if "loss" in item[0] else 1 if "_per_s" in item[0] else 2

    return sorted(metrics.items(), key=order)


def _curves(data: RunData) -> str:
    count = sum(len(curves.lines) + 1 for curves in data.metrics.values())
    most = max(20, _POINTS // (4 * max(1, count)))
    cards = "".join(
        _card(name, curves, most, tall=index < 2)
        for index, (name, curves) in enumerate(_by_interest(data.metrics))
    )
    body = f'<div class="cards">{cards}</div>' if cards else ""
    return _section("What was reported", body, name="curves")


def _card(name: str, curves: MetricCurves, most: int, *, tall: bool) -> str:
    lines = []
    if len(curves.ranks) > len(curves.lines):
        lines.append(
            charts.Line("from the lowest to the highest rank", curves.all_ranks, band=True)
        )
    lines += [charts.Line(f"rank {rank}", curves.lines[rank]) for rank in sorted(curves.lines)]
    for line in lines:
        line.curve.narrow(most)
    buckets = curves.all_ranks.buckets()
    finite = [bucket for bucket in buckets if bucket.points()]
    facts = []
    if finite:
        low = min(finite, key=lambda bucket: bucket.low[1]).low
        high = max(finite, key=lambda bucket: bucket.high[1]).high
        facts = [f"lowest {low[1]:.4g} at {charts.number(low[0])}",
                 f"highest {high[1]:.4g} at {charts.number(high[0])}"]  # fmt: skip
    odd = next((bucket.odd for bucket in buckets if bucket.odd is not None), None)
    warning = f'<p class="warn">! {odd[1]} first at step {charts.number(odd[0])}</p>' if odd else ""
    legend = "".join(
        f'<span class="key c{index}">{text(line.label)}</span>'
        for index, line in enumerate(line for line in lines if not line.band)
    )
    legend = f"<p class=legend>{legend}</p>" if len(lines) > 1 else ""
    newest = curves.newest
    value = summary.value(newest.values[name]) if newest is not None else ""
    return (
        f'<article class="card"><h3>{text(summary.label(name))} <b>{text(value)}</b></h3>{warning}'
        f"{charts.chart(lines, x_name='step', tall=tall)}"
        f"{legend}<p class=sub>{' · '.join(facts)}</p></article>"
    )


def _pace(data: RunData) -> str:
    times = {rank: each.step_s for rank, each in sorted(data.step_times.items())}
    known = {rank: step_s for rank, step_s in times.items() if step_s is not None and step_s > 0}
    if not known:
        return ""
    median_s = statistics.median_low(known.values())
    slowest = max(known, key=lambda rank: known[rank])
    slow = sorted(
        (rank for rank in known if known[rank] > FACTOR * median_s), key=lambda r: -known[r]
    )
    node_of = {rank: worker.get("node", "?") for rank, worker in data.workers.items()}
    words = (
        f"median {median_s:.4g} s a step; slowest rank {slowest} on {node_of.get(slowest, '?')}, "
    )
    words += f"{100 * (known[slowest] / median_s - 1):.0f} % over it"
    drawn = charts.dots(list(known.items()), (median_s, FACTOR * median_s), "rank")
    rows = [
        (str(rank), text(node_of.get(rank, "?")), f"{known[rank]:.4g} s",
         f"{100 * (known[rank] / median_s - 1):.0f} %")
        for rank in slow[:20]
    ]  # fmt: skip
    table = _table(("rank", "node", "step time", "over the median"), rows) if rows else ""
    legend = "<p class=legend><span class=limit-key>the median, and 20 % over it</span></p>"
    body = f'<article class="card"><p>{text(words)}</p>{drawn}{legend}{table}</article>'
    return _section("Step time by rank", body, name="pace")


# Nodes


def _health(data: RunData) -> str:
    record = data.run.record.get("nodes") or {}
    names = list(dict.fromkeys([*record, *data.nodes]))
    problems = {name: _problem_of(record.get(name)) for name in names}

    def trouble(name: str) -> tuple[int, float]:
        load = data.nodes.get(name, NodeLoad())
        return (0 if problems[name] else 1, -(load.memory_most or 0.0))

    shown = sorted(names, key=trouble)[:_MOST_NODES] if len(names) > _MOST_NODES else names
    has_gpus = any(load.newest.gpus for load in data.nodes.values())
    titles = ["node", "state", "cpu", "most memory", "least disk free"]
    titles += ["gpu"] if has_gpus else []
    rows = [
        _node_row(name, record.get(name), problems[name], data.nodes.get(name), has_gpus)
        for name in shown
    ]
    rest = [name for name in names if name not in set(shown)]
    more = f"<p class=sub>and {len(rest)} more: {text(fold(rest))}</p>" if rest else ""
    return _section("Nodes", _table(titles, rows) + more if rows else "", name="nodes")


def _problem_of(node: object) -> str:
    return str(node.get("problem") or "") if isinstance(node, Mapping) else ""


def _node_row(
    name: str, node: object, problem: str, load: NodeLoad | None, has_gpus: bool
) -> list[str]:
    state = node.get("state", "?") if isinstance(node, Mapping) else "?"
    how = f'<span class="warn">✗ {text(problem)}</span>' if problem else text(state)
    load = load or NodeLoad()
    memory = "" if load.memory_most is None else f"{100 * load.memory_most:.0f} %"
    disk = "" if load.disk_least_bytes is None else summary.size(load.disk_least_bytes)
    cells = [f"<b>{text(name)}</b>", how, _busy(load.cpu), memory, disk]
    return [*cells, _busy(load.gpu)] if has_gpus else cells


def _busy(curve: Envelope) -> str:
    values = [y for bucket in curve.buckets() for _, y in bucket.points()]
    if not values:
        return ""
    return f"{charts.spark(curve, 1.0)} <small>{100 * statistics.fmean(values):.0f} %</small>"


# What happened


def _timeline(data: RunData, now: float) -> str:
    happened = data.happened
    if not happened:
        return ""
    begin = happened[0].time
    end = max(happened[-1].time, begin + 1e-3)
    times = charts.Span(begin, end)
    bars, marks = [], []
    phases = [item for item in happened if item.kind == "run_phase_changed"]
    edges = [begin, *(item.time for item in phases), end]
    names = ["preparing", *(str(item.fields.get("phase")) for item in phases)]
    for name, left, right in zip(names, edges, edges[1:], strict=False):
        width = 100 * (times.share(right) - times.share(left))
        known = name if name in ("preparing", "running", "stopping", "collecting") else "ended"
        bars.append(
            f'<span class="phase {known}" style="left:{100 * times.share(left):.2f}%;'
            f'width:{max(width, 0.2):.2f}%" title="{text(name)} for {right - left:.1f} s">'
            f"{text(name) if width > 12 else ''}</span>"
        )
    for item in [item for item in happened if item.kind in _MARKS][:_MOST_ROWS]:
        kind, word = _MARKS[item.kind]
        marks.append(
            f'<span class="{kind}" style="left:{100 * times.share(item.time):.2f}%" '
            f'title="{word} after {item.time - begin:.1f} s"></span>'
        )
    bar = f'<div class="timeline">{"".join(bars)}{"".join(marks)}</div>'
    axis = f'<p class="sub ends"><span>0 s</span><span>{span(end - begin)}</span></p>'
    return _section("What happened", bar + axis + _restarts(data) + _events(happened, begin),
                    name="events")  # fmt: skip


def _restarts(data: RunData) -> str:
    restarts = data.run.record.get("restarts")
    rows = [
        (text(each.get("attempt")), text(each.get("cause")), _when(each.get("time"), data.began))
        for each in (restarts if isinstance(restarts, list) else [])
        if isinstance(each, Mapping)
    ]
    return _table(("attempt", "ended because", "after"), rows) if rows else ""


def _when(at: object, began: float) -> str:
    return f"{at - began:.1f} s" if isinstance(at, int | float) else "?"


def _events(happened: Sequence[Happened], begin: float) -> str:
    shown = list(happened)
    left_out = len(shown) - MOST_EVENTS
    if left_out > 0:
        shown = shown[: MOST_EVENTS // 2] + shown[-MOST_EVENTS // 2 :]
    rows = [
        (f"{item.time - begin:.2f} s", text(item.kind.replace("_", " ")) + _times(item.count),
         _details(item.fields))
        for item in shown
    ]  # fmt: skip
    if left_out > 0:
        rows.insert(MOST_EVENTS // 2, ("…", f"{left_out} more are in events.jsonl", ""))
    table = _table(("after", "event", ""), rows)
    return f"<details><summary>{summary.counted(len(happened), 'event')}</summary>{table}</details>"


def _times(count: int) -> str:
    return f" <small>× {count}</small>" if count > 1 else ""


def _details(fields: Mapping[str, Any]) -> str:
    words = [f"{key} {value}" for key, value in fields.items() if value not in ("", None)]
    return f"<code>{text(', '.join(words)[:500])}</code>"


def _checkpoints(data: RunData) -> str:
    rows = [
        (text(each.get("step")), _size(each.get("bytes")), text(each.get("node")),
         _when(each.get("time"), data.began))
        for each in data.checkpoints
    ]  # fmt: skip
    if len(rows) > _MOST_ROWS:
        rows = rows[-_MOST_ROWS:]
    body = _table(("step", "size", "from", "here after"), rows) if rows else ""
    return _section("Checkpoints", body, name="checkpoints")


def _size(count: object) -> str:
    return summary.size(count) if isinstance(count, int | float) else "?"


def _workers(data: RunData) -> str:
    alike: dict[tuple[str, str], list[int]] = {}
    for rank, worker in data.workers.items():
        alike.setdefault((str(worker.get("node", "?")), stands(worker)), []).append(rank)
    rows = [
        (text(fold([str(rank) for rank in ranks]).strip("[]")), text(node), text(how))
        for (node, how), ranks in list(alike.items())[:_MOST_ROWS]
    ]
    more = len(alike) - len(rows)
    words = f"<p class=sub>and {more} more rows</p>" if more else ""
    return _section("Workers", _table(("ranks", "node", "state"), rows) + words if rows else "",
                    name="workers")  # fmt: skip


def _plan(data: RunData) -> str:
    plan = json.dumps(data.plan, indent=1)
    if len(plan) > _MOST_JSON_CHARS:
        plan = f"{plan[:_MOST_JSON_CHARS]}\n… the whole of it is in plan.json"
    manifest = data.manifest[:_MOST_JSON_CHARS]
    body = f"<details><summary>the plan</summary><pre>{text(plan)}</pre></details>"
    if manifest:
        body += f"<details><summary>the manifest</summary><pre>{text(manifest)}</pre></details>"
    return _section("Plan and manifest", body, name="plan")
