"""The first code on a node: what it says, takes in and becomes, on every Python that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.agent import boot
from launcher.run.agent_package import agent_package, boot_command
from launcher.wire import events
from tests.agent.talk import Node, new_node, read_mark
from tests.support.deadline import wait_until

MINORS = range(7, 15)


def python_of(minor: int) -> str | None:
    """Returns a working CPython 3.<minor> of this machine, or None."""
    if sys.version_info[1] == minor:
        return sys.executable
    versions = Path("~/.pyenv/versions").expanduser()
    candidates = [shutil.which(f"python3.{minor}")]
    candidates += [str(path) for path in versions.glob(f"3.{minor}.*/bin/python3")]
    for path in candidates:
        # A shim of pyenv is there for versions that are not, and only says so when it is run.
        if path and _answers(path, minor):
            return path
    return None


def _answers(path: str, minor: int) -> bool:
    words = [path, "-ISc", "import sys; print(sys.version_info[1])"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == str(minor)


@pytest.mark.parametrize("minor", MINORS)
def test_the_agent_runs_on(minor: int, tmp_path: Path) -> None:
    python = python_of(minor)
    if python is None:
        assert minor != sys.version_info[1]
        pytest.skip(f"no CPython 3.{minor} on this machine")
    with new_node(tmp_path / "login", python=python) as node:
        talk = node.started("print('hi')", workers=2)
        assert talk.all_of(events.AgentReady)[0].python.startswith(f"3.{minor}.")
        talk.expect(events.WorkersStopped)
        talk.await_ends((0, 1))
        assert talk.output(1) == b"hi\n"
        talk.end_run()


@pytest.fixture
def silent(node: Node) -> Iterator[Node]:
    """A node that no conversation is opened with."""
    yield node
    assert not node.survivors()


def finish(process: subprocess.Popen[bytes], data: bytes = b"") -> tuple[str, int]:
    """Gives the boot code its bytes and waits for its end; returns its second word and status."""
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.close()
    word, _ = read_mark(process)
    status = process.wait(10)
    assert process.stdout is not None
    process.stdout.close()
    return word, status


def test_the_package_is_asked_for_once(node: Node) -> None:
    first = node.talk()
    assert first.word == "need"
    first.hello()
    with new_node(node.home) as later:
        assert later.talk().word == "have"
    (kept,) = (node.root / "agent").iterdir()
    assert kept.name == agent_package().digest
    assert kept.parent.stat().st_mode & 0o077 == 0


def test_what_start_up_files_print_is_no_answer(node: Node) -> None:
    talk = node.talk(prelude="echo Welcome; printf 'need\\nhave'; echo flowlaunch-agent have")
    assert talk.word == "need"
    assert talk.hello().version == events.VERSION


@pytest.mark.parametrize("change", ["first", "last"])
def test_a_damaged_package_is_refused_and_not_kept(silent: Node, change: str) -> None:
    process = silent.boot()
    assert read_mark(process)[0] == "need"
    data = bytearray(agent_package().data)
    data[0 if change == "first" else -1] ^= 1
    word, status = finish(process, bytes(data))
    assert word == "error the agent arrived damaged"
    assert status == 0
    assert list((silent.root / "agent").iterdir()) == []


def test_a_package_that_stops_halfway_leaves_nothing(silent: Node) -> None:
    process = silent.boot()
    assert read_mark(process)[0] == "need"
    word, _ = finish(process, agent_package().data[:1000])
    assert word == ""
    assert list((silent.root / "agent").iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(silent: Node) -> None:
    silent.home.mkdir()
    silent.root.write_text("a file where the directory should be")
    process = silent.boot()
    word, _ = finish(process)
    assert word.startswith("error ")
    assert ".flowlaunch" in word


def test_a_python_that_is_too_old_says_so(tmp_path: Path) -> None:
    """With a real one where there is one; else with this one, told that it is 3.6."""
    old = sorted(Path("~/.pyenv/versions").expanduser().glob("3.6.*/bin/python3"))
    command = boot_command("~/.flowlaunch", "{}", str(old[0]) if old else sys.executable)
    if not old:
        command[2] = "import sys; sys.version_info = (3, 6, 1); " + command[2]
    done = subprocess.run(
        command,
        env={"HOME": str(tmp_path), "PATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.stdout == boot.MARK + b"error python 3.6 is too old, 3.7 or newer is needed\n"


def test_a_python_that_is_too_old_gives_way_to_a_newer_one(tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    name = f"python3.{sys.version_info[1]}"
    # As pyenv leaves them on the PATH for every version that was ever installed.
    shim = bin_dir / "python3.14"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.14: command not found'\nexit 127\n")
    shim.chmod(0o755)
    if name == shim.name:
        shim.unlink()
    (bin_dir / name).symlink_to(sys.executable)
    command = boot_command("~/.flowlaunch", "{}", sys.executable)
    code = command[2]
    # Only the first of the two processes believes that it is old.
    lines = [
        "import os, sys",
        "if 'SEEN' not in os.environ: sys.version_info = (3, 6, 1)",
        "os.environ['SEEN'] = '1'",
        code,
    ]
    command[2] = "\n".join(lines)
    done = subprocess.run(
        command,
        env={"HOME": str(tmp_path), "PATH": str(bin_dir)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.stdout == boot.MARK + b"need\n"


def test_two_logins_at_once_install_one_agent(node: Node) -> None:
    with new_node(node.home) as other:
        processes = [node.boot(), other.boot()]
        for process in processes:
            assert read_mark(process)[0] == "need"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(agent_package().data + events.encode(events.EndRun(keep=False)))
            process.stdin.flush()
        for process in processes:
            assert process.wait(20) == 0
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
    assert [path.name for path in (node.root / "agent").iterdir()] == [agent_package().digest]


def test_attaching_to_a_run_that_is_not_there_says_so(silent: Node) -> None:
    talk = silent.talk("attach")
    gone = talk.expect(events.NodeUnusable)
    assert (gone.problem, gone.message) == (events.GONE, "nothing of it is left")
    talk.read_until_over()
    talk.hang_up()


def test_the_command_survives_every_shell(tmp_path: Path) -> None:
    """No word of it holds what a login shell would take for its own."""
    command = boot_command("~/.flowlaunch", "{}")
    code = command[4]
    assert not set(code) & set("'!\n\\$`")
    assert len(" ".join(command)) < 16_000


def test_the_agent_leaves_no_process_behind_when_it_is_told_to_end(node: Node) -> None:
    talk = node.talk()
    agent = talk.hello().pid
    talk.end_run()
    wait_until(lambda: not Path(f"/proc/{agent}").exists(), "the agent's end")
    assert talk.process.wait(5) == 0
    assert os.listdir(node.root / "runs") == []  # noqa: PTH208
