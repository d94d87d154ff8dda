"""The agent's two ways in: to become a run's supervisor, or to bring a launcher to one.

Either way the process that the login shell started stays until the conversation is over: sshd
would shut the command's input when it ends. It only waits; the bytes do not pass through it.
"""

import json
import os
import shutil
import socket
import sys
from typing import Any, Dict

from launcher.agent import processes
from launcher.agent.link import Link
from launcher.agent.supervisor import AGENT_SOCKET, Supervisor


def main(root: str, arguments: str) -> None:
    """Takes up one conversation.

    Args:
        root: flowlaunch's directory on this node.
        arguments: JSON with ``mode``, ``run_id`` and ``node``. The mode is "start" or "attach", or
            "visit" for a side conversation with the run's agent, which this process answers
            itself where no agent lives; "look" leaves the agent out.
    """
    wanted: Dict[str, Any] = json.loads(arguments)
    run_dir = os.path.join(root, "runs", wanted["run_id"], wanted["node"])
    waiting_end, token = os.pipe()
    if wanted["mode"] in ("visit", "look"):
        if not _visit(root, wanted, run_dir, token):
            return
    elif wanted["mode"] == "attach":
        _bring_to_agent(run_dir, token)
    elif _start(root, run_dir, token):
        return
    os.close(token)
    os.read(waiting_end, 1)


def _start(root: str, run_dir: str, token: int) -> bool:
    """Forks the supervisor; returns True in it once its run is over, False in the parent."""
    for name in ("logs", "checkpoints"):
        os.makedirs(os.path.join(run_dir, name), mode=0o700, exist_ok=True)
    os.chdir(run_dir)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Relative: a socket's path may be 107 bytes long at most.
    listener.bind(AGENT_SOCKET)
    listener.listen(2)
    if os.fork():
        listener.close()
        return False
    os.setsid()
    link = Link(os.dup(0), os.dup(1), token)
    _leave_terminal()
    processes.adopt_orphans()
    removable = Supervisor(root, run_dir, listener).run(link)
    os.chdir(root)
    for path in removable:
        _remove(path)
    _remove_empty(os.path.dirname(run_dir))
    return True


def _leave_terminal() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open("agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, source in ((0, nothing), (1, nothing), (2, log)):
        os.dup2(source, fd)
    os.close(nothing)
    os.close(log)


def _remove(path: str) -> None:
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

    if wanted["mode"] == "visit" and visits.knock(run_dir, [0, 1, token]):
        return True
    link = Link(os.dup(0), os.dup(1), token)
    visits.receive_alone(link, root, wanted["run_id"], wanted["node"])
    return False


def _bring_to_agent(run_dir: str, token: int) -> None:
    os.chdir(run_dir)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.connect(AGENT_SOCKET)
        fds = memoryview(b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, token)))
        agent.sendmsg([b"link"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
