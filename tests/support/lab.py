"""The product as a person uses it: a directory, a manifest, the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.deadline import wait_until
from tests.support.netns import NetHost
from tests.support.processes import processes_with
from tests.support.servers import SshHost, join_configs

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.strip().splitlines()[-1]


@dataclass
class Lab:
    """One person's working directory, home, and cluster.

    Attributes:
        top: the working directory.
        home: the person's home, with an ssh configuration that knows the hosts.
    """

    top: Path
    home: Path
    hosts: Sequence[SshHost] = ()
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in (self.top, self.home / ".ssh"):
            path.mkdir(parents=True, exist_ok=True)
        if self.hosts:
            joined = join_configs(self.home, list(self.hosts))
            joined.rename(self.home / ".ssh" / "config")

    def write(self, name: str, text: str) -> Path:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def manifest(self, python: Path | str, nodes: Sequence[dict[str, Any]], **more: Any) -> Path:
        """Writes cluster.yaml; JSON is YAML."""
        fields = {"name": "lab", "defaults": {"python": str(python)}, "nodes": list(nodes), **more}
        return self.write("cluster.yaml", json.dumps(fields, indent=1))

    def ssh_nodes(self, slots: Sequence[int] | int = 1) -> list[dict[str, Any]]:
        """Returns manifest entries for the hosts."""
        counts = [slots] * len(self.hosts) if isinstance(slots, int) else slots
        return [
            {"name": host.name, "addr": host.address, "slots": count, "ssh": {"host": host.name}}
            for host, count in zip(self.hosts, counts, strict=True)
        ]

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Starts the command."""
        env = {**os.environ, "HOME": str(self.home), "NO_COLOR": "1", **self.env}
        env.pop("FLOWLAUNCH_RUNS", None)
        return subprocess.Popen(
            [sys.executable, "-m", "launcher.cli.main", *arguments],
            cwd=self.top,
            env={**env, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def flowlaunch(self, *arguments: str, limit_s: float = 120.0) -> Done:
        """Runs the command to its end."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
            raise AssertionError(f"no end in {limit_s} s:\n{out}\n{err}") from None
        return Done(process.returncode, out, err)

    def run_dir(self) -> Path:
        """Returns the directory of the newest run."""
        return max(self._runs(), key=lambda path: path.stat().st_mtime)

    def _runs(self) -> list[Path]:
        runs = self.top / "runs"
        return [path for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []

    def run_id(self) -> str:
        return self.run_dir().name

    def events(self) -> list[dict[str, Any]]:
        lines = (self.run_dir() / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def wait_event(self, kind: str, limit_s: float = 60.0) -> None:
        """Waits until the newest run's events name one of this kind."""

        def seen() -> bool:
            runs = self.top / "runs"
            if not runs.is_dir() or not any(runs.glob("*/events.jsonl")):
                return False
            return f'"event": "{kind}"' in (self.run_dir() / "events.jsonl").read_text()

        wait_until(seen, f"event {kind}", limit_s)

    def survivors(self) -> list[str]:
        """Returns the processes of this lab's runs that live: by the run's id, never by name."""
        return [process for path in self._runs() for process in processes_with(path.name)]

    def no_survivors(self, limit_s: float = 5.0) -> None:
        """Asserts that nothing of any run is left, within a moment."""
        wait_until(lambda: not self.survivors(), f"an end of {self.survivors()}", limit_s)


def lab_of_namespaces(top: Path, hosts: Sequence[NetHost]) -> Lab:
    """Returns a lab whose nodes are namespaces."""
    return Lab(top / "work", top / "person", [host.ssh for host in hosts if host.ssh is not None])


Factory = Callable[[int], Lab]
