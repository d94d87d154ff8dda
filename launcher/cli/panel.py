"""The panel below the lines: how a run stands, in as many rows as there is room for. Pure."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from launcher.cli import summary
from launcher.cli.board import Board, Trend
from launcher.cli.lines import harmless
from launcher.cli.progress import describe
from launcher.core.nodeset import fold
from launcher.core.pace import FACTOR
from launcher.core.state import NodePhase, RunPhase, RunState, WorkerPhase
from launcher.core.usage import Usage

SPARKS = "▁▂▃▄▅▆▇█"
# Metrics that people look for first; others follow in the order in which they were reported.
_FIRST = ("loss",)
_MOST_TRENDS = 3
_LEAST_ROWS, _MOST_ROWS = 5, 16
# Beyond these, a node is in trouble although it works.
FULL_MEMORY = 0.95
LITTLE_DISK_BYTES = 1_000_000_000
_BAD = (NodePhase.FAILED, NodePhase.LOST)
_MARKS = {
    WorkerPhase.WAITING: ("·", "dim"),
    WorkerPhase.STARTED: ("○", ""),
    WorkerPhase.IMPORTING: ("◌", ""),
    WorkerPhase.JOINED: ("●", "green"),
    WorkerPhase.EXITED: ("✓", "dim"),
}
_MOST_MARKS = 8


def rows_for(height: int) -> int:
    """Returns how many rows the panel takes of a terminal: half of it, within bounds.

    >>> rows_for(24), rows_for(8), rows_for(200)
    (12, 4, 16)
    """
    return max(1, min(_MOST_ROWS, height // 2 if height >= 2 * _LEAST_ROWS else height - 4))


def draw(board: Board, width: int, rows: int, elapsed_s: float) -> list[Text]:
    """Returns the panel's rows, none longer than the width.

    Args:
        board: what is known.
        width: of the terminal, in cells.
        rows: how many there may be.
        elapsed_s: since the run's beginning.
    """
    state = board.state
    lines = [_title(board, width, elapsed_s)]
    if state is not None:
        lines += _progress(board, width)
        lines += [_trend(name, trend, width) for name, trend in _shown_trends(board)]
        lines += _warnings(board)
        room = rows - len(lines)
        lines += _nodes(board, state, room) if room > 0 else []
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(width, overflow="ellipsis")
    return lines[:rows]


def _title(board: Board, width: int, elapsed_s: float) -> Text:
    state = board.state
    phase = "connecting" if state is None else state.phase.value
    words = [f"attempt {state.attempt + 1}"] if state is not None and state.attempt else []
    words += [summary.standing(state)] if state is not None else []
    clock = _clock(elapsed_s)
    head = Text.assemble(
        ("── ", "dim"),
        (phase, f"bold {_phase_colour(state)}"),
        (" ", ""),
        (_one_row(board.title), "bold"),
    )
    tail = Text("  ".join([*words, clock]))
    rule = width - head.cell_len - tail.cell_len - 2
    if rule < 1:
        head.truncate(max(1, width - tail.cell_len - 2), overflow="ellipsis")
        rule = 0
    return Text.assemble(head, (" " + "─" * rule + " ", "dim"), tail)


def _one_row(words: str) -> str:
    """Returns words that a node or a job chose as they may stand in a row."""
    return harmless(words).translate({ord("\n"): " ", ord("\t"): " "})


def _phase_colour(state: RunState | None) -> str:
    if state is None or state.phase is RunPhase.PREPARING:
        return "cyan"
    if state.stop_reason is not None:
        return "red"
    return "green"


def _clock(seconds: float) -> str:
    """Returns a time span for people.

    >>> _clock(75), _clock(360_000)
    ('00:01:15', '4d 04:00:00')
    """
    days, rest = divmod(int(seconds), 86400)
    clock = time.strftime("%H:%M:%S", time.gmtime(rest))
    return f"{days}d {clock}" if days else clock


def _progress(board: Board, width: int) -> list[Text]:
    step, total = board.progress.step, board.progress.total
    if step is None:
        return []
    words = f"step {step}" + (f"/{total}" if total is not None else "")
    if not total:
        return [Text(words)]
    share = min(1.0, max(0.0, step / total))
    left_s = board.progress.left_s()
    words += f"  {100 * share:.0f} %"
    words += f"  ETA {_clock(left_s)}" if left_s is not None and step < total else ""
    room = max(4, width - len(words) - 2)
    done = math.floor(share * room)
    bar = ("━" * done, "green"), ("━" * (room - done), "bright_black")
    return [Text.assemble(*bar, ("  " + words, ""))]


def _shown_trends(board: Board) -> list[tuple[str, Trend]]:
    def order(name: str) -> int:
        return 0 if name in _FIRST else 1 if "_per_s" in name else 2

    names = sorted(board.trends, key=order)
    return [(name, board.trends[name]) for name in names[:_MOST_TRENDS]]


def _trend(name: str, trend: Trend, width: int) -> Text:
    words = _one_row(f"{summary.label(name)} {summary.value(trend.value)}")
    label = set_cell_size(words, max(24, min(cell_len(words), width // 2)))
    is_odd = str(trend.value) in ("nan", "inf", "-inf")
    room = max(0, min(width - cell_len(label) - 2, 60))
    return Text.assemble((label, "bold red" if is_odd else ""), "  ", (spark(trend, room), "cyan"))


def spark(trend: Trend, width: int) -> str:
    """Returns a curve in one row: its whole way, scaled between its lowest and highest value."""
    buckets = [bucket for bucket in trend.curve.buckets() if math.isfinite(bucket.last[1])]
    if not buckets or width < 1:
        return ""
    first, last = buckets[0].last[0], buckets[-1].last[0]
    columns: dict[int, float] = {}
    most = min(width, len(buckets))
    for bucket in buckets:
        place = (bucket.last[0] - first) / (last - first) if last > first else 0.0
        columns[min(most - 1, int(place * most))] = bucket.last[1]
    low, high = min(columns.values()), max(columns.values())
    # Halved first: the difference of the largest numbers is none.
    span = high / 2 - low / 2
    levels = {
        column: int((value / 2 - low / 2) / span * (len(SPARKS) - 1)) if span > 0 else 0
        for column, value in columns.items()
    }
    return "".join(SPARKS[levels[column]] if column in levels else " " for column in range(most))


def _warnings(board: Board) -> list[Text]:
    lines = [Text(_one_row(board.waiting), "bold yellow")] if board.waiting else []
    for odd in list(board.odd.values())[:2]:
        at = f" at step {odd.step}" if odd.step is not None else ""
        words = f"! {summary.label(odd.name)} was {odd.word}{at} on rank {odd.rank}"
        lines.append(Text(_one_row(words), "bold red"))
    pace = board.pace
    if pace is not None:
        slow = pace.slowest_factor > FACTOR
        where = f"{board.node_of.get(pace.slowest, '?')}:{pace.slowest}"
        much = f"{100 * (pace.slowest_factor - 1):.0f} % over the median of {pace.median_s:.3g} s"
        words = f"slowest {where}  {pace.step_s[pace.slowest]:.3g} s a step, {much}"
        lines.append(Text(words, "bold yellow" if slow else "dim"))
    return lines


# The nodes


def _nodes(board: Board, state: RunState, rows: int) -> list[Text]:
    """Returns a row for each node; where there are too many, the worst and one for the rest."""
    names = list(state.nodes)
    if rows < 2:
        return [_folded(board, state, names, 0)]
    room = rows - 1
    if len(names) > room:
        worst = sorted(names, key=lambda name: -_trouble(board, state, name))
        shown = [name for name in worst[: room - 1] if _trouble(board, state, name)]
        rest = [name for name in names if name not in set(shown)]
    else:
        shown, rest = names, []
    names_width = max([cell_len(name) for name in shown] + [4])
    if rest:
        names_width = max(names_width, cell_len(fold(rest)))
    names_width = min(names_width, 24)
    has_gpus = any(usage.gpus for usage in board.usage.values())
    lines = [_header(names_width, has_gpus)] if shown else []
    lines += [_node(board, state, name, names_width, has_gpus) for name in shown]
    lines += [_folded(board, state, rest, names_width)] if rest else []
    return lines


def _header(names_width: int, has_gpus: bool) -> Text:
    cells = [f"{word:>5}" for word in ("cpu", "mem", *(("gpu", "vram") if has_gpus else ()))]
    words = f"{'node':<{names_width}}  {'state':<10}{''.join(cells)}  {'disk free':>9}  ranks"
    return Text(words, "dim")


def _trouble(board: Board, state: RunState, name: str) -> int:
    """Returns how much a node deserves to be looked at; 0 is not at all."""
    node = state.nodes[name]
    if node.problem or node.phase in _BAD:
        return 3
    usage = board.usage.get(name)
    if usage is not None and _is_strained(usage):
        return 2
    pace = board.pace
    if pace is not None and pace.slowest_factor > FACTOR:
        return int(board.node_of.get(pace.slowest) == name)
    return 0


def _is_strained(usage: Usage) -> bool:
    memory, disk = usage.memory, usage.disk_free_bytes
    return (memory is not None and memory > FULL_MEMORY) or (
        disk is not None and disk < LITTLE_DISK_BYTES
    )


def _node(board: Board, state: RunState, name: str, names_width: int, has_gpus: bool) -> Text:
    node = state.nodes[name]
    style = "red" if node.problem or node.phase in _BAD else ""
    text = Text(f"{set_cell_size(name, names_width)}  {node.phase.value:<10}", style)
    if node.problem:
        return text.append("  " + _one_row(node.problem), "red")
    building = board.building.get(name)
    if building is not None and state.phase is RunPhase.PREPARING:
        return text.append("  " + _one_row(describe(building)))
    text.append(_load(board.usage.get(name), has_gpus))
    return text.append("  ").append(_ranks(state, board.ranks.get(name, [])))


def _load(usage: Usage | None, has_gpus: bool) -> Text:
    usage = usage or Usage()
    text = Text()
    shares = [(usage.cpu, math.inf), (usage.memory, FULL_MEMORY)]
    if has_gpus:
        shares += [(usage.gpu, math.inf), (usage.gpu_memory, math.inf)]
    for share, most in shares:
        style = "bold yellow" if share is not None and share > most else ""
        text.append(f"{_percent(share):>5}", style)
    free = usage.disk_free_bytes
    little = free is not None and free < LITTLE_DISK_BYTES
    words = "" if free is None else summary.size(free)
    return text.append(f"  {words:>9}", "bold yellow" if little else "")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def _ranks(state: RunState, ranks: Sequence[int]) -> Text:
    phases = [state.workers[rank].phase for rank in ranks if rank in state.workers]
    if len(phases) <= _MOST_MARKS:
        return Text.assemble(*(_MARKS.get(phase, ("?", "")) for phase in phases))
    counts = Counter(phases)
    words = [f"{count} {_MARKS.get(phase, ('?', ''))[0]}" for phase, count in counts.items()]
    return Text(" ".join(words))


def _folded(board: Board, state: RunState, names: Sequence[str], names_width: int) -> Text:
    """Returns many nodes in one row: how they stand, and the span of their load."""
    folded = fold(names)
    names_width = names_width or min(24, cell_len(folded))
    if cell_len(folded) > names_width:
        folded = f"{len(names)} nodes"
    counts = Counter(state.nodes[name].phase for name in names)
    (phase, count), *others = counts.most_common()
    words = phase.value if not others else f"{count} {phase.value}"
    known = [board.usage[name] for name in names if name in board.usage]
    text = Text(f"{set_cell_size(folded, names_width)}  {words:<10}")
    for other, number in others:
        text.append(f" {number} {other.value}")
    if known:
        for label, shares in (
            ("cpu", [usage.cpu for usage in known]),
            ("mem", [usage.memory for usage in known]),
            ("gpu", [usage.gpu for usage in known]),
        ):
            text.append(_span(label, shares))
    ranks = [rank for name in names for rank in board.ranks.get(name, [])]
    return text.append("  ").append(_ranks(state, ranks))


def _span(label: str, shares: Sequence[float | None]) -> str:
    known = [100 * share for share in shares if share is not None]
    return f"  {label} {min(known):.0f}–{max(known):.0f}%" if known else ""
