"""Publishing beside the training: one checkpoint at a time, and no failure goes unseen.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import atexit
import os
import sys
import threading
from typing import Callable, Optional


class Background:
    """Runs one piece of work at a time in a thread that the process waits for at its end."""

    def __init__(self) -> None:
        self._thread: Optional[threading.Thread] = None
        self._error: Optional[BaseException] = None
        self._watches_end = False

    def wait(self) -> None:
        """Waits for what runs. Raises what it raised, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def start(self, work: Callable[[], object]) -> None:
        """Begins a piece of work, once the one before has ended.

        Raises:
            Exception: what the one before raised.
        """
        self.wait()
        if not self._watches_end:
            self._watches_end = True
            atexit.register(self._end)
        # No daemon: Python's end waits for it, however the program came there.
        self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoint")
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error

    def _end(self) -> None:
        """A worker whose last checkpoint failed must not end with 0."""
        try:
            self.wait()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(1)
