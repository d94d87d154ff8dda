"""The processes of runs on this machine, known by the run's id and by nothing else.

A worker and all that it starts carry FLOWLAUNCH_RUN_ID in the environment that they were started
with; an agent has the id in its last argument. What another user runs is never looked at, though
root could.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import collections
import json
import os
import signal
import time
from typing import Dict, Iterable, List, NamedTuple, Optional, Set

AGENT, WORKER = "agent", "worker"
_RUN_ID = b"FLOWLAUNCH_RUN_ID="
_NODE = b"FLOWLAUNCH_NODE="
_RANK = b"RANK="
_TICK_S = 0.02
# After KILL, so long until what the kernel does not end counts as left.
KILL_LIMIT_S = 1.8
_MAX_COMMAND = 200


class RunProcess(NamedTuple):
    """One living process of a run.

    Attributes:
        kind: "agent" or "worker"; a worker's own children count as it.
        rank: of a worker, -1 of an agent.
        born: when it was started, in the kernel's ticks: with the pid, its identity.
    """

    pid: int
    run: str
    node: str
    kind: str
    rank: int
    command: str
    born: int


def of_runs() -> List[RunProcess]:
    """Returns the living processes of all runs of this user on this machine.

    Whoever asks is not among them, nor what it was started by.
    """
    own = _own_line()
    found: List[RunProcess] = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in own:
            found += _look_at(int(name))
    return found


class Ended(NamedTuple):
    """What came of ending processes: how many of each run have ended, and which have not."""

    ended: Dict[str, int]
    left: List[RunProcess]


def end(
    runs: Iterable[str], grace_s: float, with_agents: bool, node: Optional[str] = None
) -> Ended:
    """Ends the processes of some runs: TERM, the grace, KILL; their agents last.

    Args:
        runs: the runs' ids.
        grace_s: from TERM to KILL.
        with_agents: whether the runs' agents are ended too.
        node: only what was started for this node; None is all of it.
    """
    wanted = set(runs)

    def living() -> List[RunProcess]:
        return [
            each
            for each in of_runs()
            if each.run in wanted
            and node in (None, each.node)
            and (with_agents or each.kind != AGENT)
        ]

    seen: Set[RunProcess] = set()
    asked: Set[RunProcess] = set()
    kill_at = time.monotonic() + grace_s
    while True:
        left = living()
        seen.update(left)
        now = time.monotonic()
        if not left or now >= kill_at + KILL_LIMIT_S:
            gone = collections.Counter(each.run for each in seen.difference(left))
            return Ended(dict(gone), left)
        # An agent's death takes its workers along, which are to have their grace before.
        workers = {each for each in left if each.kind != AGENT}
        if not workers or now >= kill_at:
            _signal(workers or left, signal.SIGKILL)
        else:
            _signal(workers - asked, signal.SIGTERM)
            asked |= workers
        time.sleep(_TICK_S)


def _signal(processes: Iterable[RunProcess], number: "signal.Signals") -> None:
    for process in processes:
        # Its number may be another's by now.
        if _born(process.pid) == process.born:
            try:
                os.kill(process.pid, number)
            except (ProcessLookupError, PermissionError):
                continue


def _own_line() -> Set[int]:
    """Returns this process and everything that it came out of."""
    line, pid = {os.getpid()}, os.getppid()
    while pid > 1 and pid not in line:
        line.add(pid)
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0
    return line


def _look_at(pid: int) -> List[RunProcess]:
    top = "/proc/%d/" % pid
    try:
        if os.stat(top).st_uid != os.geteuid():
            return []
        environ, arguments = _read(top + "environ"), _read(top + "cmdline")
    except OSError:
        return []  # it has ended, or shows nobody what it is
    told = _told(environ)
    agent = _agent_arguments(arguments)
    if not told and not agent:
        return []
    fields = _stat(pid)
    if not fields or fields[0] == "Z":
        return []
    command = _command(arguments)
    found = []
    if agent:
        found.append(
            RunProcess(pid, agent["run_id"], agent["node"], AGENT, -1, "agent", int(fields[19]))
        )
    if told:
        run, node, rank = told["run"], told.get("node", ""), told.get("rank", "-1")
        number = int(rank) if rank.lstrip("-").isdigit() else -1
        found.append(RunProcess(pid, run, node, WORKER, number, command, int(fields[19])))
    return found


def _told(environ: bytes) -> Dict[str, str]:
    """Returns what a process was told of its run, nothing where it is of none."""
    if _RUN_ID not in environ:
        return {}
    names = {_RUN_ID: "run", _NODE: "node", _RANK: "rank"}
    told: Dict[str, str] = {}
    for entry in environ.split(b"\0"):
        for start, name in names.items():
            if entry.startswith(start):
                told.setdefault(name, os.fsdecode(entry[len(start) :]))
    return told if told.get("run") else {}


def _agent_arguments(cmdline: bytes) -> Optional[Dict[str, str]]:
    """Returns what an agent was started with, None where this is no agent's command line."""
    if b'"run_id"' not in cmdline:
        return None
    try:
        last = json.loads(cmdline.rstrip(b"\0").rpartition(b"\0")[2].decode("utf-8"))
        if last["mode"] in ("start", "succeed"):
            return {"run_id": str(last["run_id"]), "node": str(last["node"])}
    except (ValueError, KeyError, TypeError):
        pass  # somebody else's words
    return None


def _command(cmdline: bytes) -> str:
    words = cmdline.rstrip(b"\0").split(b"\0")
    return b" ".join(words).decode("utf-8", "replace")[:_MAX_COMMAND]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _born(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if fields else -1


def _stat(pid: int) -> List[str]:
    """Returns a process's state, parent and so on: the fields of its stat behind the name."""
    try:
        return _read("/proc/%d/stat" % pid).decode("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []
