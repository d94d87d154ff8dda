"""A real agent, started as the launcher starts it, and spoken to over its own wire."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from launcher.agent.boot import MARK
from launcher.run.agent_package import agent_package, boot_command
from launcher.wire import codec, events, order
from launcher.wire.tree import tree_hash
from tests.support.deadline import wait_until
from tests.support.processes import parents, processes_with

M = TypeVar("M", bound=events.Message)
_counter = itertools.count()
STREAMS = ("stdout", "stderr", "report")


@dataclass
class Talk:
    """One conversation: what was sent back so far, and the bytes of each stream."""

    process: subprocess.Popen[bytes]
    word: str
    decoder: codec.Decoder = field(default_factory=codec.Decoder)
    received: list[events.Message] = field(default_factory=list)
    streams: dict[tuple[int, str], bytearray] = field(default_factory=dict)
    is_over: bool = False
    _heard: int = 0

    def send(self, *commands: events.Command) -> None:
        assert self.process.stdin is not None
        for command in commands:
            self.process.stdin.write(events.encode(command))
        self.process.stdin.flush()

    def expect(self, kind: type[M], limit_s: float = 60.0, **fields: object) -> M:
        """Returns the next message of a kind, later than the last one that was expected."""
        deadline = time.monotonic() + limit_s
        while True:
            for message in self.received[self._heard :]:
                self._heard += 1
                if isinstance(message, kind) and all(
                    getattr(message, name) == value for name, value in fields.items()
                ):
                    return message
            assert not self.is_over, f"no {kind.__name__} before the end: {self.received[-5:]}"
            assert self.read(deadline), f"no {kind.__name__} in time: {self.received[-5:]}"

    def read_until_over(self, limit_s: float = 60.0) -> None:
        """Reads until the agent ends the conversation."""
        deadline = time.monotonic() + limit_s
        while not self.is_over:
            assert self.read(deadline), f"no end in time: {self.received[-5:]}"

    def all_of(self, kind: type[M]) -> list[M]:
        return [message for message in self.received if isinstance(message, kind)]

    def output(self, rank: int, stream: str = "stdout") -> bytes:
        return bytes(self.streams.get((rank, stream), b""))

    def wait_output(self, rank: int, words: bytes, stream: str = "stdout") -> None:
        deadline = time.monotonic() + 60.0
        while words not in self.output(rank, stream):
            assert self.read(deadline), (words, self.output(rank, stream)[-200:])

    def wait_more(self, rank: int) -> None:
        """Waits for the next bytes of a rank's stdout."""
        before, deadline = len(self.output(rank)), time.monotonic() + 60.0
        while len(self.output(rank)) == before:
            assert self.read(deadline), f"nothing more than {before} bytes of rank {rank}"

    def read(self, deadline: float) -> bool:
        """Takes in the next bytes; False at the deadline."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        data = os.read(fd, 1 << 20)
        self.is_over = not data
        for frame in self.decoder.feed(data):
            self._take(events.decode(frame))
        return True

    def _take(self, message: events.Message) -> None:
        self.received.append(message)
        if isinstance(message, events.WorkerOutput):
            stream = self.streams.setdefault((message.rank, message.stream), bytearray())
            assert message.offset == len(stream), "a byte was lost or doubled"
            stream += message.data

    def offsets(self) -> bytes:
        """Returns what a later conversation asks for: the rest."""
        found: dict[str, dict[str, int]] = {}
        for (rank, name), data in self.streams.items():
            found.setdefault(str(rank), {})[name] = len(data)
        return events.pack_json(found)

    def prepare(self, ordered: Ordered) -> events.NodePrepared:
        self.send(events.PrepareRun(order.pack(ordered.node)))
        wanted = events.unpack_json(self.expect(events.FilesWanted).data)
        for sha256 in wanted:
            data = ordered.contents[sha256]
            self.send(events.PutFile(sha256, 0, len(data), data))
        return self.expect(events.NodePrepared)

    def hello(self, lease_s: float = 60.0) -> events.AgentReady:
        self.send(events.Hello(events.VERSION, lease_s))
        return self.expect(events.AgentReady)

    def await_ends(self, ranks: Sequence[int] = (0,)) -> None:
        """Waits for the end of every stream and proves the bytes that came."""
        expected = {(rank, name) for rank in ranks for name in STREAMS}
        while expected:
            end = self.expect(events.OutputEnded)
            data = self.output(end.rank, end.stream)
            assert end.size == len(data)
            assert end.sha256 == hashlib.sha256(data).hexdigest()
            expected.discard((end.rank, end.stream))

    def end_run(self) -> None:
        self.send(events.EndRun(keep=False))
        self.expect(events.RunEnded)
        self.read_until_over()

    def hang_up(self) -> None:
        """Drops the connection as a network does, from this side."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        self.process.wait(10)


@dataclass
class Ordered:
    """An order and the bytes of its files."""

    node: order.NodeOrder
    contents: dict[str, bytes]


@dataclass
class Node:
    """A login of this machine with a home of its own, where one run's agent lives."""

    home: Path
    python: str = sys.executable
    env: dict[str, str] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: f"t{os.getpid()}x{next(_counter)}")
    talks: list[Talk] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.home / ".flowlaunch"

    @property
    def run_dir(self) -> Path:
        return self.root / "runs" / self.run_id / "n1"

    def log(self, rank: int, stream: str = "stdout") -> bytes:
        return (self.run_dir / "logs" / f"rank-{rank}.{stream}.log").read_bytes()

    def boot(self, mode: str = "start", prelude: str = "") -> subprocess.Popen[bytes]:
        """Starts the first process; `prelude` is what a login shell's start-up files do."""
        arguments = json.dumps({"mode": mode, "run_id": self.run_id, "node": "n1"})
        command = boot_command("~/.flowlaunch", arguments, self.python)
        if prelude:
            command = ["/bin/sh", "-c", f'{prelude}; exec "$@"', "sh", *command]
        self.home.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.home,
            env={**os.environ, "HOME": str(self.home), **self.env},
            start_new_session=True,
        )

    def talk(self, mode: str = "start", prelude: str = "", package: bytes | None = None) -> Talk:
        """Opens a conversation."""
        process = self.boot(mode, prelude)
        word, rest = read_mark(process)
        if word == "need":
            assert process.stdin is not None
            process.stdin.write(agent_package().data if package is None else package)
            process.stdin.flush()
        talk = Talk(process, word)
        for frame in talk.decoder.feed(rest):
            talk._take(events.decode(frame))
        self.talks.append(talk)
        return talk

    def ordered(
        self,
        files: Mapping[str, str | bytes],
        *,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        argv: Sequence[str] = ("script", "job.py"),
        **changes: Any,
    ) -> Ordered:
        """Returns an order for workers that run `job.py`."""
        raw = {
            name: text.encode() if isinstance(text, str) else text for name, text in files.items()
        }
        contents = {hashlib.sha256(data).hexdigest(): data for data in raw.values()}
        tree = [
            order.TreeFile(name, hashlib.sha256(data).hexdigest(), len(data), 0o644)
            for name, data in raw.items()
        ]
        fields: dict[str, Any] = {
            "run_id": self.run_id,
            "node": "n1",
            "python": sys.executable,
            "build_runtime": False,
            "workdir": ".",
            "tree": tree_hash(tree),
            "files": tree,
            "workers": [
                order.WorkerOrder(rank, rank, list(argv), self._worker_env(rank, workers, env))
                for rank in range(workers)
            ],
            "hosts_rendezvous": True,
            "ctrl_port": 0,
            "detached": False,
            "collect": [],
            "max_log_bytes": 0,
        }
        return Ordered(order.NodeOrder(**{**fields, **changes}), contents)

    def _worker_env(self, rank: int, workers: int, env: Mapping[str, str] | None) -> dict[str, str]:
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers)}
        return {**own, "FLOWLAUNCH_RUN_ID": self.run_id, **(env or {})}

    def started(self, job: str | bytes, *, lease_s: float = 60.0, **more: Any) -> Talk:
        """Returns a conversation in which every worker was started."""
        talk = self.talk()
        talk.hello(lease_s)
        files = {"job.py": job, **more.pop("files", {})}
        ordered = self.ordered(files, **more)
        port = talk.prepare(ordered).ctrl_port
        talk.send(events.StartWorkers(0, port, ""))
        for _ in ordered.node.workers:
            talk.expect(events.WorkerStarted)
        return talk

    def survivors(self) -> list[str]:
        return processes_with(self.run_id)

    def close(self) -> None:
        """Ends what is left; asks politely first."""
        for talk in self.talks:
            if talk.process.stdin is not None and not talk.process.stdin.closed:
                with contextlib.suppress(OSError):
                    talk.send(events.StopWorkers(0.0), events.EndRun(keep=False))
            talk.hang_up()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.survivors(), "the agent's end", 0.7)
        for line in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        wait_until(lambda: not self.survivors(), "the survivors' end", 5.0)


def read_mark(process: subprocess.Popen[bytes], limit_s: float = 60.0) -> tuple[str, bytes]:
    """Returns the boot code's word and what follows it; "" where it ended without one."""
    assert process.stdout is not None
    seen, deadline = b"", time.monotonic() + limit_s
    while True:
        _, mark, rest = seen.partition(MARK)
        if mark and b"\n" in rest:
            word, _, rest = rest.partition(b"\n")
            return word.decode(), rest
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"no word from the boot code: {seen!r}"
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            return "", seen
        seen += data


def is_alive(pid: int) -> bool:
    return pid in parents()


@contextlib.contextmanager
def new_node(home: Path, **more: Any) -> Iterator[Node]:
    node = Node(home, **more)
    try:
        yield node
    finally:
        node.close()
