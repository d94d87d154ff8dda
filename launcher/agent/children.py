"""Programs that a build starts: each ends when its builder ends, stops growing or is told to.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Callable, Dict, List, Optional

PROBLEM_STOPPED = "stopped"

_TICK_S = 0.1
_MEASURE_EVERY_S = 0.5
_TERM_GRACE_S = 5.0
_TAIL_BYTES = 4000

# A builder that is killed outright cannot end its pip, which would go on filling the disk. The
# kernel can: PR_SET_PDEATHSIG (1) outlives execve. It is set by a Python in between, because
# code between fork and exec (preexec_fn) may deadlock in a program that has threads. A parent
# that died before the prctl is seen by its changed pid.
_TIED = """
import os, signal, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class RuntimeBuildError(Exception):
    """The OneFlow runtime cannot be built here.

    Attributes:
        problem: a stable word: stopped, platform, interpreter, venv, disk, cache, index, hash,
            install, verify.
        message: what happened, one sentence without a final stop.
        hint: what to do about it, in one or more lines.
    """

    def __init__(self, problem: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message
        self.hint = hint


class Runner:
    """Runs the programs of one build, one after the other, with their output in one log file."""

    def __init__(self, log_path: str, should_stop: Callable[[], bool]) -> None:
        self.log_path = log_path
        self._should_stop = should_stop

    def check_stop(self) -> None:
        """Raises RuntimeBuildError where the build is no longer wanted."""
        if self._should_stop():
            raise RuntimeBuildError(PROBLEM_STOPPED, "the build of the runtime was stopped")

    def run(
        self,
        argv: List[str],
        environ: Dict[str, str],
        patience_s: float,
        measure: Optional[Callable[[], int]] = None,
    ) -> int:
        """Runs a program to its end and returns its exit code, negative for a signal.

        Args:
            argv: the program and its arguments.
            environ: its whole environment.
            patience_s: seconds after which it is ended, counted anew whenever `measure` changes.
            measure: called twice a second; what it returns shows that work goes on.

        Raises:
            RuntimeBuildError: the build was stopped. The program and its group are gone then.
        """
        tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *argv]
        with open(self.log_path, "ab") as log:
            child = subprocess.Popen(
                tied,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environ,
                start_new_session=True,
            )
            try:
                return self._wait_end(child, patience_s, measure)
            finally:
                _end(child)

    def _wait_end(
        self,
        child: "subprocess.Popen[bytes]",
        patience_s: float,
        measure: Optional[Callable[[], int]],
    ) -> int:
        seen = -1
        next_look = moved = time.monotonic()
        while True:
            try:
                return child.wait(timeout=_TICK_S)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            self.check_stop()
            if measure is not None and now >= next_look:
                next_look = now + _MEASURE_EVERY_S
                grown = measure()
                seen, moved = (grown, now) if grown != seen else (seen, moved)
            if now - moved > patience_s:
                self.note("given up: nothing happened for %.0f s" % patience_s)
                return -int(signal.SIGALRM)

    def note(self, line: str) -> None:
        """Adds a line of our own to the log."""
        with open(self.log_path, "ab") as log:
            log.write(line.encode("utf-8", "replace") + b"\n")

    def tail(self) -> str:
        """Returns the end of the log, at most 4,000 bytes of it."""
        try:
            with open(self.log_path, "rb") as log:
                log.seek(max(0, os.path.getsize(self.log_path) - _TAIL_BYTES))
                return log.read().decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Ends a child and its group: TERM, a grace, KILL."""
    if child.poll() is not None:
        return
    _signal_group(child.pid, signal.SIGTERM)
    try:
        child.wait(timeout=_TERM_GRACE_S)
    except subprocess.TimeoutExpired:
        _signal_group(child.pid, signal.SIGKILL)
        child.wait()


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # it ended by itself in this moment
        return
