"""What a stop does to a script that trains: its weights are published before it ends.

Scripts of the old API save when their loops are through. One that is stopped, by a time limit or
by a person, would lose what it learnt.

Only the standard library is imported at the top: the handler is there before OneFlow is.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
import typing

# Python's handlers run between two steps, never while one waits for another worker. Where that one
# has ended, nothing is published, and a thread ends the process after so long.
_PATIENCE_S = 3.0


class _Stop:
    """Whether this process is to stop, and whether it may at the moment."""

    def __init__(self) -> None:
        self.is_wanted = False
        self.is_heard = threading.Event()
        self.steps_under_way = 0


_stop = _Stop()


def install(rank: int, world_size: int) -> None:
    """Makes TERM publish the weights on rank 0, and leave the other ranks alone for as long."""
    if world_size > 1:
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        threading.Thread(target=_end_in_time, args=(read_end,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: _on_term(rank))


@contextlib.contextmanager
def held() -> typing.Iterator[None]:
    """Puts off a stop until what is inside, a step, is done."""
    _stop.steps_under_way += 1
    try:
        yield
    finally:
        _stop.steps_under_way -= 1
    if _stop.is_wanted and not _stop.steps_under_way:
        _end()


def _on_term(rank: int) -> None:
    if not _can_publish():
        _die()
    if rank > 0:
        return  # rank 0's step may need this one's
    _stop.is_wanted = True
    if not _stop.steps_under_way:
        _end()


def _can_publish() -> bool:
    """Says whether this script has come as far as to have something."""
    checkpoint = sys.modules.get("launcher.legacy.checkpoint")
    return checkpoint is not None and bool(checkpoint.steps_done())


def _end() -> None:
    _stop.is_heard.set()
    try:
        importlib.import_module("launcher.legacy.checkpoint").publish_now()
    except OSError as error:  # a full disk: the stop is still a stop
        sys.stderr.write("flowlaunch --legacy-api: nothing is published: {}\n".format(error))
    _die()


def _die() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _end_in_time(read_end: int) -> None:
    while signal.SIGTERM not in os.read(read_end, 64):
        continue
    if not _stop.is_heard.wait(_PATIENCE_S):
        os._exit(128 + signal.SIGTERM)
