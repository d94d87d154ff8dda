"""The processes below this one: every one of them, whatever they did to get away.

The agent makes itself the subreaper of its descendants: whoever forks, starts a new session and
lets its parent die becomes the agent's child. So the agent has no children left exactly when
nothing of the run lives.
"""

import ctypes
import os
import signal
from typing import Dict, List

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None)


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan among its descendants (Linux 3.4)."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Lets the kernel end this process when its parent ends; kept over an exec."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def descendants() -> List[int]:
    """Returns the ids of all living processes below this one."""
    children: Dict[int, List[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _parent_of_living(name)
            children.setdefault(parent, []).append(int(name))
    found: List[int] = []
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _parent_of_living(pid: str) -> int:
    try:
        with open("/proc/%s/stat" % pid) as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return -1
    return -1 if state == "Z" else int(parent)


def signal_all(pids: List[int], number: "signal.Signals") -> None:
    """Sends a signal to each of the processes that still lives."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
