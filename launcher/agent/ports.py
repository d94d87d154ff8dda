"""Ports of this machine: is one free, who has it, does somebody listen."""

import errno
import glob
import os
import random
import socket
from typing import Iterator, List, Optional

# Below the ephemeral range (from 32768 on), so that no outgoing connection takes it meanwhile.
FIRST_PORT, LAST_PORT = 20000, 32000
_LISTEN, _SYN_RECEIVED = "0A", "03"
# The kernel writes whole rows, as many as a read has room for; a row has 150 bytes or more.
_LESS_THAN_A_ROW = 128


def is_free(port: int) -> bool:
    """Says whether a server could bind the port on every address of this machine.

    OneFlow itself would not notice a second server on its rendezvous port: it binds with
    SO_REUSEPORT, and two jobs would destroy each other. This bind goes without.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As OneFlow does it: else a port would be taken for a minute after a run, by TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - as OneFlow binds it
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return not is_listening(port)


def choose_free() -> int:
    """Returns a free port, a random one, so that two runs hardly ever choose the same.

    Raises:
        OSError: none of a hundred was free.
    """
    for _ in range(100):
        port = random.randrange(FIRST_PORT, LAST_PORT)  # noqa: S311 - no secret
        if is_free(port):
            return port
    raise OSError(errno.EADDRINUSE, "no free port between %d and %d" % (FIRST_PORT, LAST_PORT))


def is_listening(port: int) -> bool:
    """Says whether a process of this machine listens on the port, without connecting to it."""
    return _listener(port) is not None


def _listener(port: int) -> Optional[str]:
    """Returns the inode of the listening socket."""
    wanted = ":%04X" % port
    for row in _listening_rows():
        if row[1].endswith(wanted):
            return row[9]
    return None


def _listening_rows() -> Iterator[List[str]]:
    """Yields what the kernel's tables say of each listening socket.

    These stand first in a table. To look for any others takes the kernel five milliseconds, even
    where there are none, which is why no further row is asked for.
    """
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name, "rb", buffering=_LESS_THAN_A_ROW) as file:
                next(file, b"")
                for line in file:
                    row = line.decode("ascii").split()
                    if row[3] == _LISTEN:
                        yield row
                    elif row[3] != _SYN_RECEIVED:
                        break
        except OSError:
            continue


def holder(port: int) -> str:
    """Returns who listens on the port, e.g. ``nginx (pid 812)``, or "" where that is hidden."""
    inode = _listener(port)
    if inode is None:
        return ""
    wanted = "socket:[%s]" % inode
    for fd in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(fd) == wanted:
                return _name(fd.split("/")[2])
        except OSError:
            continue
    return ""


def _name(pid: str) -> str:
    with open("/proc/%s/comm" % pid) as file:
        return "%s (pid %s)" % (file.read().strip(), pid)
