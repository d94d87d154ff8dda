"""Where the workers of a node are in their Python code, asked from outside.

py-spy tells it where it is installed and may look; else the worker's own bootstrap does, upon a
signal for which Python's faulthandler answers, even while the program waits in native code.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import os
import shutil
import subprocess
import time
from typing import Dict, Mapping, Optional

from launcher.agent import streams
from launcher.agent.bootstrap import STACKS_SIGNAL
from launcher.wire import events

MAX_BYTES = 64 * 1024
_ANSWER_S = 3.0
_SPY_S = 10.0
_TICK_S = 0.02
# What is written without a pause of this length is one answer.
_PAUSE_S = 0.1


def answer(pids: Mapping[int, int], logs: str, python: str) -> events.Event:
    """Returns the event that tells where the workers are.

    Args:
        pids: the process of each rank that lives.
        logs: the directory of the workers' streams.
        python: their interpreter; py-spy may stand beside it.
    """
    quiet = quiet_s(logs)
    return events.StacksCollected(quiet, events.pack_json(collect(pids, logs, python)))


def quiet_s(logs: str) -> float:
    """Returns for how long no worker has written anything, by the files of their streams."""
    newest = 0.0
    for rank in streams.ranks_in(logs):
        for stream in streams.STREAMS:
            try:
                newest = max(newest, os.stat(streams.log_path(logs, rank, stream)).st_mtime)
            except OSError:
                continue  # it has not begun to write
    return max(0.0, time.time() - newest)


def collect(pids: Mapping[int, int], logs: str, python: str) -> Dict[str, str]:
    """Returns what py-spy, or the worker itself, says of each rank; "" where none says anything."""
    spy = _find_spy(python)
    files = {rank: streams.stacks_path(logs, rank) for rank in pids}
    before = {rank: _size(path) for rank, path in files.items()}
    # All at once: many ranks are not to wait for each other.
    asked = {rank for rank, pid in pids.items() if spy is None and _ask(pid)}
    found: Dict[str, str] = {}
    for rank, pid in pids.items():
        told = _spy_on(spy, pid) if spy is not None else ""
        if not told and (rank in asked or _ask(pid)):
            told = _answer(files[rank], before[rank])
        found[str(rank)] = told
    return found


def _find_spy(python: str) -> Optional[str]:
    beside = os.path.join(os.path.dirname(python), "py-spy")
    return beside if os.access(beside, os.X_OK) else shutil.which("py-spy")


def _spy_on(spy: str, pid: int) -> str:
    try:
        done = subprocess.run(
            [spy, "dump", "--pid", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SPY_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    told = done.stdout[:MAX_BYTES].decode("utf-8", "replace")
    # Its exit code goes to the agent's loop, which waits for every child.
    return told if "\nThread " in told else ""


def _ask(pid: int) -> bool:
    """Signals a worker that has a handler for it; the signal would end any other program."""
    try:
        with open("/proc/%d/status" % pid) as status:
            caught = [line.split()[1] for line in status if line.startswith("SigCgt:")]
        if not int(caught[0], 16) >> (STACKS_SIGNAL - 1) & 1:
            return False
        os.kill(pid, STACKS_SIGNAL)
        return True
    except (OSError, IndexError, ValueError):
        return False


def _answer(path: str, offset: int) -> str:
    deadline = time.monotonic() + _ANSWER_S
    size, grown_at = offset, time.monotonic()
    while time.monotonic() < deadline:
        now = _size(path)
        if now != size:
            size, grown_at = now, time.monotonic()
        elif size > offset and time.monotonic() - grown_at >= _PAUSE_S:
            break
        time.sleep(_TICK_S)
    if size <= offset:
        return ""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(MAX_BYTES).decode("utf-8", "replace")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
