"""The agent's two ways in: to become a run's supervisor, or to bring a launcher to one.

Either way the process that the login shell started stays until the conversation is over: sshd
would shut the command's input when it ends. It only waits; the bytes do not pass through it.
"""

import gc
import json
import os
import socket
import sys
from typing import Any, Dict, NoReturn

from launcher.agent.link import Link

# Where launchers knock, in the run's directory.
AGENT_SOCKET = "agent.sock"
# What only an agent needs is imported where it becomes one: visitors (`status`, `stop`, `reap`,
# `checkpoints pull`) do without.


def main(root: str, arguments: str) -> NoReturn:
    """Takes up one conversation, and ends the process with it.

    Args:
        root: flowlaunch's directory on this node.
        arguments: JSON with ``mode``, ``run_id`` and ``node``. The mode is "start" for the agent of
            a run, made where there is none; "attach" for one that lives; "succeed" for one that
            lives, or for a new one over what an earlier one left; "visit" for a side conversation
            with the run's agent, which this process answers itself where no agent lives; "look"
            leaves the agent out.
    """
    _converse(root, json.loads(arguments))
    # The interpreter would take 10 ms, on each node, to put away what is in order.
    os._exit(0)


def _converse(root: str, wanted: Dict[str, Any]) -> None:
    run_dir = os.path.join(root, "runs", wanted["run_id"], wanted["node"])
    waiting_end, token = os.pipe()
    mode = wanted["mode"]
    if mode in ("visit", "look"):
        if not _visit(root, wanted, run_dir, token):
            return
    elif not _follow(root, run_dir, mode, token):
        return
    os.close(token)
    os.read(waiting_end, 1)


def _follow(root: str, run_dir: str, mode: str, token: int) -> bool:
    """Brings a launcher to the run's agent; returns False where this process is not needed for it.

    That is in the agent that it became, once the run is over, and where there is none.
    """
    if mode == "start":
        for name in ("logs", "checkpoints"):
            os.makedirs(os.path.join(run_dir, name), mode=0o700, exist_ok=True)
    if _bring_to_agent(run_dir, token):
        return True
    if mode == "attach" or not os.path.isdir(run_dir):
        _say_gone(run_dir)
        return False
    return not _become_agent(root, run_dir, token)


def _become_agent(root: str, run_dir: str, token: int) -> bool:
    """Forks the supervisor; returns True in it once its run is over, False in the parent."""
    from launcher.agent import processes
    from launcher.agent.supervisor import Supervisor

    gc.enable()
    os.chdir(run_dir)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Relative: a socket's path may be 107 bytes long at most. One that is there is nobody's.
    fresh = "%s.%d" % (AGENT_SOCKET, os.getpid())
    listener.bind(fresh)
    listener.listen(2)
    os.rename(fresh, AGENT_SOCKET)
    if os.fork():
        listener.close()
        return False
    os.setsid()
    link = Link(os.dup(0), os.dup(1), token)
    _leave_terminal()
    processes.adopt_orphans()
    supervisor = Supervisor(root, run_dir, listener)
    removable = supervisor.run(link)
    os.chdir(root)
    for path in removable:
        _remove(path)
    _remove_empty(os.path.dirname(run_dir))
    supervisor.close()
    return True


def _leave_terminal() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open("agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, source in ((0, nothing), (1, nothing), (2, log)):
        os.dup2(source, fd)
    os.close(nothing)
    os.close(log)


def _remove(path: str) -> None:
    import shutil

    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


def _remove_empty(directory: str) -> None:
    try:
        os.rmdir(directory)
    except OSError:
        pass  # another node's part of the run is there still: one home, several nodes


def _visit(root: str, wanted: Dict[str, Any], run_dir: str, token: int) -> bool:
    """Returns True where the agent has taken the visitor, False where they were served here."""
    from launcher.agent import visits

    gc.enable()
    if wanted["mode"] == "visit" and visits.knock(run_dir, [0, 1, token]):
        return True
    link = Link(os.dup(0), os.dup(1), token)
    visits.receive_alone(link, root, wanted["run_id"], wanted["node"])
    return False


def _bring_to_agent(run_dir: str, token: int) -> bool:
    """Hands this conversation to the run's agent; returns False where none lives."""
    try:
        os.chdir(run_dir)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.connect(AGENT_SOCKET)
            fds = memoryview(b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, token)))
            agent.sendmsg([b"link"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def _say_gone(run_dir: str) -> None:
    from launcher.agent.memory import RunMemory
    from launcher.wire import events

    left = os.path.isdir(run_dir)
    words = RunMemory(run_dir).farewell() or ("it was killed" if left else "nothing of it is left")
    gone = events.NodeUnusable(events.GONE, words, "")
    os.write(1, events.encode(gone))
