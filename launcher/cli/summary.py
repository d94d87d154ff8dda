"""What is said of a run in words: how it goes, how it ended, what failed first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.cli.lines import harmless, to_text
from launcher.collect.gathered import Gathered
from launcher.collect.reports import Metrics
from launcher.core.hang import described, headline
from launcher.core.standing import ORDERED
from launcher.core.state import NodePhase, RunPhase, RunState, StopReason, WorkerPhase, WorkerState
from launcher.run.following import Ending
from launcher.wire.events import RunEnded

# Of a failed worker's stderr, so many lines at the end.
TAIL_LINES = 20


def size(count: float) -> str:
    """Returns a number of bytes for people.

    >>> size(512), size(2_400_000)
    ('512 B', '2.4 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun.

    >>> counted(1, "node"), counted(3, "worker"), counted(0, "process")
    ('1 node', '3 workers', '0 processes')
    """
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def value(number: Any) -> str:
    """Returns a metric's value for people.

    >>> value(0.123456), value(661.27), value(3), value("nan")
    ('0.1235', '661.3', '3', 'nan')
    """
    return f"{number:.4g}" if isinstance(number, float) else str(number)


def progress(metrics: Metrics) -> str:
    """Returns one line of a worker's report.

    >>> progress(Metrics(0.0, 0, 20, 600, {"loss": 0.5, "images_per_s": 640.0}))
    'step 20/600  loss 0.5  images/s 640'
    """
    words = []
    if metrics.step is not None:
        total = f"/{metrics.total}" if metrics.total is not None else ""
        words.append(f"step {metrics.step}{total}")
    words += [f"{label(name)} {value(number)}" for name, number in metrics.values.items()]
    return harmless("  ".join(words))


def label(name: str) -> str:
    """Returns a metric's name for people.

    >>> label("images_per_s")
    'images/s'
    """
    return name.replace("_per_", "/")


def standing(state: RunState) -> str:
    """Returns in one line how far a run is before its workers train."""
    nodes, workers = state.nodes.values(), state.workers.values()
    if state.phase is RunPhase.PREPARING:
        ready = sum(node.phase is NodePhase.PREPARED for node in nodes)
        return f"{ready}/{len(nodes)} nodes ready"
    joined = sum(worker.phase is WorkerPhase.JOINED for worker in workers)
    ended = sum(worker.phase is WorkerPhase.EXITED for worker in workers)
    if state.phase is RunPhase.RUNNING and ended == 0:
        return f"{joined}/{len(workers)} ranks joined"
    return f"{state.phase.value}, {ended}/{len(workers)} workers ended"


def reason(ending: Ending) -> str:
    """Returns why a run ended with its exit code, in one sentence."""
    state = ending.state
    if state.stop_reason is StopReason.INTERRUPTED:
        return "interrupted; the workers were stopped first"
    if state.stop_reason is StopReason.STOPPED:
        return "stopped by `flowlaunch stop`"
    if state.stop_reason is StopReason.HUNG and state.suspicion is not None:
        return f"hung: {harmless(headline(state.suspicion))}"
    if state.stop_reason is StopReason.TIMEOUT:
        return "the time of --timeout was over; the workers were stopped"
    if state.stop_reason is StopReason.LEASE:
        return "no launcher followed it for longer than its lease; the workers were stopped"
    if state.stop_reason is StopReason.START_TIMEOUT:
        return "the time of --start-timeout was over; the workers were stopped"
    cause = state.root_cause
    if cause is not None:
        worker = state.workers[cause.rank]
        last = _last_words(worker, ending.stderr_tail)
        why = f" ({harmless(last)})" if last else ""
        return f"rank {cause.rank} on {worker.node} {cause.in_words}{why}"
    if state.stop_reason is StopReason.NODE_FAILED:
        names = [name for name, node in state.nodes.items() if node.problem]
        return f"cannot use {', '.join(names)}"
    if state.missing:
        return "the job ended well, but not everything is here"
    return "every worker ended with 0, and everything is here, verified"


def collected(gathered: Gathered) -> str:
    """Returns that a path of a working directory is here."""
    files = "" if gathered.files == 1 else f"{gathered.files} files, "
    return harmless(f"{gathered.node}: {gathered.path} is here, {files}{size(gathered.bytes)}")


def failure(ending: Ending) -> list[str]:
    """Returns the lines that explain what failed, none where nothing did."""
    state = ending.state
    lines = []
    for name, node in state.nodes.items():
        if node.problem:
            lines.append(f"{name}: {harmless(node.problem)}")
            lines += [f"  hint: {harmless(node.hint)}"] if node.hint else []
    cause = state.root_cause
    if state.stop_reason is StopReason.HUNG and state.suspicion is not None:
        lines += map(harmless, described(state.suspicion))
    elif cause is not None and state.stop_reason not in ORDERED:
        worker = state.workers[cause.rank]
        lines.append(f"rank {cause.rank} on {worker.node} failed first:")
        lines += [f"  | {line}" for line in _last_lines(worker, ending.stderr_tail)]
        lines += [f"  {worker.node}: {harmless(fact)}" for fact in worker.facts]
    lines += [f"missing: {harmless(line)}" for line in state.missing]
    return lines


def result(ending: Ending, top: Path) -> list[str]:
    """Returns what a run brought home."""
    state = ending.state
    lines = [
        f"run {top.name}: {counted(len(state.workers), 'worker')} on "
        f"{counted(len(state.nodes), 'node')}, {ending.elapsed_s:.1f} s; logs in {top / 'logs'}"
    ]
    if ending.checkpoints:
        newest = max(ending.checkpoints, key=lambda stored: stored.step)
        lines.append(
            f"{counted(len(ending.checkpoints), 'checkpoint')} here, verified; the newest is "
            f"{newest.directory} ({size(newest.bytes)})"
        )
    if ending.gathered:
        # A path that changed came more than once.
        newest_of = {(one.node, one.path): one for one in ending.gathered}
        total = size(sum(one.bytes for one in newest_of.values()))
        what = counted(len(newest_of), "collected path")
        lines.append(f"{what} here, verified, in {top / 'collected'} ({total})")
    lines += [_kept(node, left) for node, left in ending.kept.items()]
    return lines


def _kept(node: str, left: RunEnded) -> str:
    if left.files == 0:
        return f"{node}: the run's files stay there, in {left.kept}"
    files = counted(left.files, "file")
    return f"{node}: the job wrote {files} ({size(left.bytes)}) that stay there, in {left.kept}"


def _last_lines(worker: WorkerState, tail: bytes) -> list[str]:
    """Returns the traceback that ended a worker's program, else the end of its stderr."""
    if worker.raised is not None and worker.raised.trace:
        return [harmless(line) for line in worker.raised.trace[-TAIL_LINES:]]
    lines = [to_text(line) for line in tail.rstrip(b"\n").split(b"\n")] if tail.strip() else []
    return lines[-TAIL_LINES:] or ["it wrote nothing to stderr"]


def _last_words(worker: WorkerState, tail: bytes) -> str:
    """Returns the exception's line, else what the node knows of the end, "" where nobody knows."""
    if worker.raised is not None:
        return worker.raised.words.splitlines()[0]
    return _exception_in(tail) or next(iter(worker.facts), "")


def _exception_in(tail: bytes) -> str:
    """Returns the line of a traceback that names the exception, or "" where there is none."""
    lines = [to_text(line) for line in tail.rstrip().split(b"\n")]
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        return next((line for line in reversed(lines) if line and not line[0].isspace()), "")
    return ""
