"""What takes its time, done beside the agent's loop.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import threading
from typing import Callable

from launcher.wire import events


def start(
    name: str, work: Callable[[], events.Event], emit: Callable[[events.Event], None]
) -> None:
    """Does some work in a thread of its own and emits what comes of it.

    The thread is a daemon: an agent that is no longer wanted does not wait for it.

    Args:
        name: what it is, a stable word; also the problem's name where it fails.
        work: returns the event to emit.
        emit: takes it, from the thread.
    """

    def run() -> None:
        try:
            emit(work())
        except Exception as error:
            # Whatever it is: the launcher waits for an answer.
            emit(events.NodeUnusable(name, "%s: %s" % (type(error).__name__, error), ""))

    threading.Thread(target=run, name=name, daemon=True).start()
