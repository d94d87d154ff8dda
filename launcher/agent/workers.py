"""The workers of one node: start them, hold them at the gate, end them, see them off."""

import os
import signal
import subprocess
from typing import Dict, List, NamedTuple, Optional, Tuple

from launcher.agent import processes, streams
from launcher.wire.order import WorkerOrder

BOOTSTRAP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap.py")
# An HTTP proxy hangs OneFlow's rendezvous; the other two would put the launcher's own
# environment in place of the runtime's.
SCRUBBED = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
            "PYTHONHOME", "__PYVENV_LAUNCHER__")  # fmt: skip
QUIET = {"GLOG_minloglevel": "2"}
# Worth 1.6 to 3.6 times the speed on CPUs that have both instruction sets: OpenBLAS inside of
# OneFlow takes newer ones for an old Barcelona, oneDNN's bias add is slow, and the virtual
# machine's own thread spins a second core.
FAST_CPU_FLAGS = {"avx2", "fma"}
FAST_CPU = {
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEFLOW_ENABLE_ONEDNN_OPTS": "0",
    "ONEFLOW_VM_COMPUTE_ON_WORKER_THREAD": "0",
}


class Ended(NamedTuple):
    """How a worker ended: an exit code, or the signal that ended it."""

    rank: int
    exit_code: Optional[int]
    signal: int


class WorkerSet:
    """The workers of one attempt, from their start until nothing of them lives.

    Attributes:
        is_settled: nothing of them lives any more.
        pids: the process of each rank, also once it has ended.
    """

    def __init__(self, python: str, workdir: str, logs: str) -> None:
        self._python = python
        self._workdir = workdir
        self._logs = logs
        self._ranks: Dict[int, int] = {}
        self._gate: Optional[int] = None
        self.is_settled = False
        self.pids: Dict[int, int] = {}

    def log_path(self, rank: int, stream: str) -> str:
        """Returns the file that a worker's stream goes to."""
        return streams.log_path(self._logs, rank, stream)

    def start_all(
        self, orders: List[WorkerOrder], extra_env: Dict[str, str]
    ) -> List[Tuple[int, int]]:
        """Starts every worker; returns their ranks and process ids.

        Raises:
            OSError: the interpreter cannot be started. Those started before it are not ended.
        """
        read_end, self._gate = os.pipe()
        try:
            return [(order.rank, self._start(order, extra_env, read_end)) for order in orders]
        finally:
            os.close(read_end)

    def _start(self, order: WorkerOrder, extra_env: Dict[str, str], gate: int) -> int:
        env = worker_environment(order.env, extra_env)
        env["FLOWLAUNCH_GATE"] = str(gate)
        env["FLOWLAUNCH_REPORT"] = self.log_path(order.rank, streams.REPORT)
        env["FLOWLAUNCH_STACKS"] = streams.stacks_path(self._logs, order.rank)
        logs = [self._open_log(order.rank, name) for name in (streams.STDOUT, streams.STDERR)]
        try:
            process = subprocess.Popen(
                [self._python, BOOTSTRAP] + list(order.argv),
                cwd=self._workdir,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=logs[0],
                stderr=logs[1],
                pass_fds=(gate,),
                start_new_session=True,
                # Safe: the agent's only other thread reads GPUs; prctl needs nothing it may hold.
                preexec_fn=processes.die_with_parent,
            )
        finally:
            for fd in logs:
                os.close(fd)
        # Reaped by waitpid(-1) in `reap`, together with adopted orphans; Popen must not try.
        process.returncode = 0
        self._ranks[process.pid] = order.rank
        self.pids[order.rank] = process.pid
        return process.pid

    def _open_log(self, rank: int, stream: str) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self.log_path(rank, stream), flags, 0o600)

    def open_gate(self) -> None:
        """Lets the workers go on that wait at their import of oneflow."""
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None

    def reap(self) -> List[Ended]:
        """Collects every process that ended; returns the workers among them."""
        ended: List[Ended] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            if pid in self._ranks:
                ended.append(_ended(self._ranks.pop(pid), status))

    @property
    def living(self) -> Dict[int, int]:
        """The processes of the ranks that have not ended."""
        return {rank: pid for pid, rank in self._ranks.items()}

    @property
    def running(self) -> List[int]:
        """The ranks whose process has not ended."""
        return sorted(self._ranks.values())

    def terminate(self) -> None:
        """Asks every process group of the workers, and whatever left them, to end."""
        for pid in self._ranks:
            try:
                os.killpg(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        processes.signal_all(self._stragglers(), signal.SIGTERM)

    def _stragglers(self) -> List[int]:
        groups = set(self._ranks)
        return [pid for pid in processes.descendants() if _group(pid) not in groups]

    def kill(self) -> None:
        """Ends every process below the agent, workers or not."""
        processes.signal_all(processes.descendants(), signal.SIGKILL)

    def has_processes(self) -> bool:
        """Says whether anything of the run lives, or has died and was not yet reaped."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def settle(self) -> None:
        """Notes that nothing of them lives."""
        self.is_settled = True
        self.open_gate()


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _ended(rank: int, status: int) -> Ended:
    if os.WIFSIGNALED(status):
        return Ended(rank, None, os.WTERMSIG(status))
    return Ended(rank, os.WEXITSTATUS(status), 0)


def worker_environment(order: Dict[str, str], extra: Dict[str, str]) -> Dict[str, str]:
    """Returns a worker's whole environment: the login's, mended, then the plan's, then `extra`."""
    env = {key: value for key, value in os.environ.items() if not _is_scrubbed(key)}
    for key, value in _defaults().items():
        env.setdefault(key, value)
    env.update(order)
    env.update(extra)
    return env


def _is_scrubbed(key: str) -> bool:
    # What a worker is told is of this run alone, not of one that its login came out of.
    return key in SCRUBBED or (key.startswith("FLOWLAUNCH_") and key != "FLOWLAUNCH_CACHE")


def _defaults() -> Dict[str, str]:
    defaults = dict(QUIET)
    if _cpu_flags() >= FAST_CPU_FLAGS:
        defaults.update(FAST_CPU)
    return defaults


def _cpu_flags() -> "set[str]":
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("flags"):
                    return set(line.split())
    except OSError:
        pass  # no such file: no flag is known, and the defaults stay off
    return set()
