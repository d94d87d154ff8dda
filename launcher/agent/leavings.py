"""What runs left on this node: agents, workers, and the directories of runs.

Found for every run of this user: by the run's id in a process's environment, and by the
directories below flowlaunch's own. Nothing else is looked at, and so nothing else is touched.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import os
import shutil
import socket
import time
from typing import Any, Dict, List, Optional, Set

from launcher.agent import run_processes, visits
from launcher.wire import codec, events


def find_runs(root: str, node: str) -> events.RunsFound:
    """Returns what there is of every run.

    Args:
        root: flowlaunch's directory on this node.
        node: how the launcher calls this node. The directories of others are their own business:
            one home may be shared by several.
    """
    runs: Dict[str, Dict[str, Any]] = {}
    places: Dict[str, Set[str]] = {}
    for process in run_processes.of_runs():
        found = runs.setdefault(process.run, _nothing())
        found["processes"].append(process._asdict())
        if process.kind == run_processes.AGENT:
            places.setdefault(process.run, set()).add(_directory_of(process.pid))
    top = os.path.join(root, "runs")
    for run in _names(top):
        directory = os.path.join(top, run, node)
        if os.path.isdir(directory):
            found = runs.setdefault(run, _nothing())
            found["age_s"], found["bytes"] = _age_and_size(directory)
            found["directory"] = directory
    for run, directories in places.items():
        runs[run]["standings"] = list(filter(None, map(ask_agent, sorted(directories))))
    return events.RunsFound(events.pack_json(runs))


def _directory_of(pid: int) -> str:
    """Returns an agent's own directory, which is that of its run, whatever its node is called."""
    try:
        return os.readlink("/proc/%d/cwd" % pid)
    except OSError:
        return ""


def _nothing() -> Dict[str, Any]:
    return {"processes": [], "directory": "", "age_s": 0.0, "bytes": 0, "standings": []}


def end_runs(command: events.EndRuns, root: str, node: str) -> events.RunsEnded:
    """Ends the processes of some runs, with their agents, and removes directories of some.

    `command.data`: JSON ``{"end": [run, ...], "remove": [run, ...]}``. The answer names for each
    ended run how many processes ended and which are left.
    """
    wanted = events.unpack_json(command.data)
    done = run_processes.end(wanted["end"], command.grace_s, with_agents=True)
    left = [process._asdict() for process in done.left]
    answer: Dict[str, Any] = {"ended": done.ended, "left": left, "removed": []}
    living = {process.run for process in run_processes.of_runs()}
    for run in wanted["remove"]:
        if run not in living and _remove(root, run, node):
            answer["removed"].append(run)
    return events.RunsEnded(events.pack_json(answer))


def _remove(root: str, run: str, node: str) -> bool:
    if not all(name and "/" not in name and name not in (".", "..") for name in (run, node)):
        return False
    parent = os.path.join(root, "runs", run)
    shutil.rmtree(os.path.join(parent, node), ignore_errors=True)
    try:
        os.rmdir(parent)
    except OSError:
        pass  # another node's part of it, where a home is shared
    return not os.path.exists(os.path.join(parent, node))


def _names(directory: str) -> List[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _age_and_size(directory: str) -> "tuple[float, int]":
    newest, size = 0.0, 0
    for place, _, names in os.walk(directory):
        for path in [place] + [os.path.join(place, name) for name in names]:
            try:
                status = os.lstat(path)
            except OSError:
                continue  # it went while we looked
            newest = max(newest, status.st_mtime)
            size += status.st_size if path != place else 0
    return max(0.0, time.time() - newest), size


def ask_agent(run_dir: str) -> Optional[Dict[str, Any]]:
    """Asks the agent of a run's directory how the run stands; None where none answers."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            if not visits.knock(run_dir, [theirs.fileno()] * 3):
                return None
        ours.settimeout(visits.ANSWER_S)
        ours.sendall(events.encode(events.AskStanding()))
        return _hear_standing(ours)


def _hear_standing(ours: socket.socket) -> Optional[Dict[str, Any]]:
    decoder = codec.Decoder()
    try:
        while True:
            data = ours.recv(65536)
            if not data:
                return None
            for frame in decoder.feed(data):
                event = events.decode(frame)
                if isinstance(event, events.StandingReported):
                    standing: Dict[str, Any] = events.unpack_json(event.data)
                    return standing
    except (OSError, codec.WireError):
        return None
