"""What the matrix of faults has in common: its job, how a fault is watched, what was measured."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.deadline import wait_until
from tests.support.lab import Lab
from tests.support.processes import parents

# Where a run of the matrix keeps what it measured, one JSON object a line.
MEASURES = "FLOWLAUNCH_MATRIX"
# Of sixteen ranks too, this fits into a pipe that nobody reads.
LINES = 50

JOB = '''
import os, resource, signal, subprocess, sys, time
how, meeting = sys.argv[1:]
rank, attempt = int(os.environ["RANK"]), int(os.environ["FLOWLAUNCH_ATTEMPT"])

def meet(name):
    open(os.path.join(meeting, name), "w").close()

def wait(name):
    while not os.path.exists(os.path.join(meeting, name)):
        time.sleep(0.002)

# OneFlow holds the interpreter while it waits for the others: another process has to strike.
STRIKER = """
import os, socket, sys, time
while socket.socket().connect_ex(("127.0.0.1", int(os.environ["MASTER_PORT"]))):
    time.sleep(0.002)
open(sys.argv[1], "w").close()
os.kill(os.getppid(), 9)
"""
if how == "rendezvous" and attempt == 0:
    if rank == 0:
        subprocess.Popen([sys.executable, "-c", STRIKER, os.path.join(meeting, "go")])
    if rank == 1:
        time.sleep(600)
    import oneflow
if how == "never" and attempt == 0 and rank == 1:
    time.sleep(600)
if how in ("never", "collective", "leaves"):
    import oneflow
for stream in (sys.stdout, sys.stderr):
    stream.write("".join("rank %d line %d\\n" % (rank, number) for number in range(LINES)))
    stream.flush()
if attempt > 0:
    sys.exit(0)
if how == "stubborn" and rank == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if how == "grandchild" and rank == 0:
    ignores = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(600)"
    child = subprocess.Popen(
        [sys.executable, "-uc", ignores], start_new_session=True, stdout=subprocess.PIPE
    )
    child.stdout.readline()
meet("up-%d" % rank)
if how == "saves":
    from launcher import worker
    from pathlib import Path
    def write(directory):
        Path(directory, "weights").write_bytes(os.urandom(64 << 20))
    if rank == 1:
        worker.context().save_files(write, 1)
    sys.exit(0)
if how == "patient":
    wait("end")
    print("the last line of rank %d" % rank)
    sys.exit(0)
wait("go")
if how in ("collective", "leaves") and rank != 1:
    oneflow.comm.barrier()
if rank == 1:
    if how in ("kill", "collective"):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise ValueError("the loss is nan")
    if how in ("exit", "stubborn", "grandchild"):
        sys.exit(3)
    if how in ("early", "leaves"):
        sys.exit(0)
    if how == "disk":
        # Never more than the small disk holds, should it not be one.
        with open("filled", "wb") as file:
            for _ in range(160):
                file.write(bytes(1 << 20))
    if how == "memory":
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
        kept = bytearray(1 << 30)
if how == "early":
    import oneflow
time.sleep(600)
'''.replace("LINES", str(LINES))


def early_lines(rank: int) -> str:
    """Returns what a rank writes to each stream before the fault."""
    return "".join(f"rank {rank} line {number}\n" for number in range(LINES))


def workers_of(run_id: str, attempt: int = 0, *more: str) -> set[int]:
    """Returns what lives of an attempt's workers and their children, on every node.

    Args:
        run_id: the run.
        attempt: the number of its attempt.
        more: other entries of their environment, as "KEY=value".
    """
    names = (f"FLOWLAUNCH_RUN_ID={run_id}", f"FLOWLAUNCH_ATTEMPT={attempt}", *more)
    words = [name.encode() for name in names]
    found = set()
    for pid in parents():
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if all(word in environment for word in words):
                found.add(pid)
    return found


@dataclass
class Trial:
    """One fault in one run, watched from the outside.

    Attributes:
        fault: what goes wrong.
        mode: "attached", "detached" or "restart".
        struck_at: when it went wrong, by this machine's wall clock.
    """

    lab: Lab
    fault: str
    mode: str
    how: str
    options: tuple[str, ...] = ()
    world: int = 2
    struck_at: float = 0.0
    detected_s: float | None = None
    stopped_s: float | None = None
    process: subprocess.Popen[str] | None = None
    said: str = ""
    job: str = JOB
    _stop_counts_from: float = 0.0

    @property
    def meeting(self) -> Path:
        return self.lab.top.parent / "meeting"

    def meet(self, name: str) -> None:
        """Lets the workers go on past the place of this name."""
        (self.meeting / name).touch()

    def begin(self) -> None:
        """Starts the run; a detached one is left by its launcher."""
        self.meeting.mkdir()
        self.lab.write("job.py", self.job)
        more = {"restart": ("--max-restarts", "1"), "detached": ("-d",)}.get(self.mode, ())
        arguments = ("run", "job.py", *more, *self.options, "--", self.how, str(self.meeting))
        if self.mode == "detached":
            done = self.lab.flowlaunch(*arguments)
            assert done.code == 0, done.err
        else:
            self.process = self.lab.start(*arguments)

    def wait_up(self) -> None:
        """Waits until every rank has written its lines."""
        names = [self.meeting / f"up-{rank}" for rank in range(self.world)]
        wait_until(self._all(names), f"{names} of {self.how}", 90.0)

    def _all(self, names: list[Path]) -> Callable[[], bool]:
        def met() -> bool:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"it ended: {self.process.communicate()}")
            return all(name.exists() for name in names)

        return met

    def strike(self, fault: Callable[[], object]) -> None:
        """Lets it go wrong, now."""
        self.struck_at = time.time()
        fault()

    def attach(self) -> None:
        """Takes over what has no launcher; the time until all is stopped counts from here."""
        self._stop_counts_from = time.time()
        self.process = self.lab.start("attach", "last", "--lease", "15")

    def watch_stop(self, limit_s: float = 60.0) -> None:
        """Waits until nothing of the attempt's workers lives on any node, and measures it."""
        run_id = self.lab.run_id()
        wait_until(lambda: not workers_of(run_id), "the end of every worker", limit_s)
        self.stopped_s = time.time() - (self._stop_counts_from or self.struck_at)

    def end(self, limit_s: float = 90.0) -> int:
        """Waits for the launcher's end and for that of every process of the run; returns its code.

        Where there is no launcher, one attaches before.
        """
        code = self.end_of_launcher(limit_s)
        self.lab.no_survivors(20.0)
        return code

    def end_of_launcher(self, limit_s: float = 90.0) -> int:
        """Waits for the launcher's end alone."""
        if self.process is None:
            self.attach()
        assert self.process is not None
        _, self.said = self.process.communicate(timeout=limit_s)
        return self.process.returncode

    @property
    def last_line(self) -> str:
        return self.said.strip().splitlines()[-1]

    def detected(self, *kinds: str) -> None:
        """Measures when the first event of these kinds after the fault was known."""
        when = [
            float(event["clock"] if self.mode == "detached" and "clock" in event else event["time"])
            for event in self.lab.events()
            if event["event"] in kinds
        ]
        after = [at - self.struck_at for at in when if at >= self.struck_at - 0.005]
        assert after, f"none of {kinds} after the fault: {self.lab.events()}"
        self.detected_s = max(0.0, min(after))

    def assert_logs(self) -> None:
        """Asserts that every byte that was written before the fault is here."""
        for rank in range(self.world):
            for stream in ("stdout", "stderr"):
                [log] = self.lab.run_dir().glob(f"logs/*/rank-{rank}.{stream}.log")
                text = log.read_text()
                assert text.startswith(early_lines(rank)), f"{log}: {text[:200]!r}"
                if self.mode == "restart" and self.said:
                    assert text.count(f"rank {rank} line {LINES - 1}\n") <= 2

    def wait_logs(self) -> None:
        """Waits until what was written before the fault is here: later it cannot come."""

        def are_here() -> bool:
            logs = list(self.lab.run_dir().glob("logs/*/rank-*.std*.log"))
            whole = [log for log in logs if f"line {LINES - 1}\n" in log.read_text()]
            return len(whole) == 2 * self.world

        wait_until(are_here, "the first lines of every rank", 30.0)

    def causes(self) -> list[str]:
        """Returns why each attempt before the last one failed."""
        record: dict[str, Any] = json.loads((self.lab.run_dir() / "run.json").read_text())
        return [restart["cause"] for restart in record["restarts"]]

    def keep(self, code: int, told: str) -> None:
        """Keeps what was measured, where a run of the whole matrix asks for it."""
        path = os.environ.get(MEASURES)
        if not path:
            return
        measured = {
            "fault": self.fault,
            "mode": self.mode,
            "code": code,
            "told": told,
            "detected_s": self.detected_s,
            "stopped_s": self.stopped_s,
        }
        with Path(path).open("a") as file:
            file.write(json.dumps(measured) + "\n")


@contextlib.contextmanager
def after(delay_s: float, act: Callable[[], None]) -> Iterator[None]:
    """Does something that long from now, unless the block fails before; waits for it at the end."""
    timer = threading.Timer(delay_s, act)
    timer.start()
    try:
        yield
        timer.join()
    finally:
        timer.cancel()
        timer.join()


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    """Puts a disk of its own, of this size, where a directory is to be."""
    directory.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True, capture_output=True)
