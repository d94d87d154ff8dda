"""The rooms of the house: who imports whom, who prints, how rooms are called."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "launcher"
FILES = sorted(LAUNCHER.rglob("*.py"))
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "stuff"}
# What only a worker's process may import, and there only inside of functions.
WORKERS_OWN = {"oneflow", "numpy"}
WORKER_ROOMS = ("worker", "legacy")


def inside(path: Path) -> str:
    return path.relative_to(LAUNCHER).as_posix()


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Yields every imported module with its statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module


def test_imports_flow_one_way() -> None:
    """The contracts of pyproject.toml hold."""
    program = Path(sys.executable).with_name("lint-imports")
    assert program.exists(), "import-linter is missing: install flowlaunch[dev]"
    done = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_no_room_is_a_drawer(path: Path) -> None:
    words = {*path.relative_to(LAUNCHER).parent.parts, path.stem}
    assert not words & DRAWERS


@pytest.mark.parametrize(
    "path", [path for path in FILES if not inside(path).startswith("cli/")], ids=inside
)
def test_only_the_command_line_prints(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{inside(path)}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_the_launcher_imports_nothing_that_is_the_workers(path: Path) -> None:
    room = inside(path).split("/")[0]
    for statement, name in imports(ast.parse(path.read_text())):
        if name.split(".")[0] in WORKERS_OWN:
            assert room in WORKER_ROOMS, f"{inside(path)}:{statement.lineno} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_nothing_is_left_to_do(path: Path) -> None:
    text = path.read_text()
    for word in ("TODO", "FIXME", "XXX", "breakpoint("):
        assert word not in text


def test_no_merge_is_half_done() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.suffix in (".py", ".md", ".toml", ".yaml", ".txt", ""):
            lines = path.read_text(errors="replace").splitlines()
            assert not any(line.startswith(("<<<<<<< ", ">>>>>>> ")) for line in lines), name


def run_help(*options: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Runs `flowlaunch --help`; returns how it ended and the CPU time that it took."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, *options, "-m", "launcher.cli.main", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    after = os.times()
    spent = after.children_user + after.children_system
    return done, spent - before.children_user - before.children_system


def test_help_imports_nothing_that_it_does_not_need() -> None:
    done, _ = run_help("-X", "importtime")
    assert "Usage:" in done.stdout
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "click" in loaded
    heavy = {"paramiko", "cryptography", "pydantic", "rich", "yaml", "ClusterShell", "asyncio"}
    assert not loaded & (heavy | WORKERS_OWN)


def test_help_takes_less_than_a_quarter_of_a_second() -> None:
    """Of CPU time, the best of three: a busy machine makes no difference to that."""
    assert min(run_help()[1] for _ in range(3)) < 0.25
