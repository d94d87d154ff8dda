"""A worker's first code: how the job sees the world, and how its end is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher.agent.workers import BOOTSTRAP


def run(
    top: Path,
    *arguments: str,
    kind: str = "script",
    target: str = "job.py",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a job as the agent does."""
    return subprocess.run(
        [sys.executable, BOOTSTRAP, kind, target, *arguments],
        cwd=cwd or top,
        env={
            "PATH": os.environ["PATH"],
            "FLOWLAUNCH_ROOT": str(top),
            "FLOWLAUNCH_REPORT": str(top / "report"),
            **(env or {}),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def job(top: Path, text: str) -> Path:
    (top / "job.py").write_text(text)
    return top


FAKE = "import atexit\natexit.register(print, 'barrier')\n"


@pytest.mark.parametrize("oneflow", [False, True])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("pass", 0),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(0)", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit(-1)", 255),
        ("import sys; sys.exit('text')", 1),
        ("import sys; sys.exit(1.5)", 1),
        ("1/0", 1),
        ("raise KeyboardInterrupt", 130),
        ("raise BaseException('x')", 1),
        ("import os; os._exit(7)", 7),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("def broken(:", 1),
        ("import missing_module", 1),
    ],
)
def test_the_exit_code_is_the_one_that_python_would_give(
    tmp_path: Path, text: str, code: int, oneflow: bool
) -> None:
    (tmp_path / "oneflow.py").write_text(FAKE)
    head = "import oneflow\n" if oneflow else ""
    assert run(job(tmp_path, head + text)).returncode == code


@pytest.mark.parametrize("text", ["1/0", "import sys; sys.exit(3)", "import sys; sys.exit('why')"])
def test_a_failed_rank_does_not_wait_in_the_exit_barrier(tmp_path: Path, text: str) -> None:
    (tmp_path / "oneflow.py").write_text(FAKE)
    done = run(job(tmp_path, f"import oneflow\nprint('worked')\n{text}"))
    assert done.stdout == "worked\n"
    done = run(job(tmp_path, "import oneflow\nprint('worked')"))
    assert done.stdout == "worked\nbarrier\n"


def test_a_text_to_exit_with_is_printed(tmp_path: Path) -> None:
    done = run(job(tmp_path, "import sys; sys.exit('no data')"))
    assert done.stderr == "no data\n"


def test_a_traceback_shows_the_frames_of_the_job_only(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("def fail():\n    raise ValueError('why')\n")
    done = run(job(tmp_path, "import part\n\n\ndef main():\n    part.fail()\n\n\nmain()\n"))
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    files = [line.split('"')[1] for line in lines if line.startswith("  File ")]
    assert files == [str(tmp_path / name) for name in ("job.py", "job.py", "part.py")]
    assert lines[-1] == "ValueError: why"


def test_a_traceback_of_a_module_shows_the_frames_of_the_job_only(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "train.py").write_text("raise ValueError('why')\n")
    done = run(tmp_path, kind="module", target="pkg.train")
    files = [line.split('"')[1] for line in done.stderr.splitlines() if line.startswith("  File ")]
    assert files == [str(tmp_path / "pkg" / "train.py")]


def test_a_syntax_error_shows_the_line_and_nothing_of_ours(tmp_path: Path) -> None:
    done = run(job(tmp_path, "x = 1\ndef broken(:\n"))
    assert f'File "{tmp_path / "job.py"}", line 2' in done.stderr
    assert "runpy" not in done.stderr
    assert "bootstrap" not in done.stderr


def test_a_cause_keeps_its_own_frames(tmp_path: Path) -> None:
    text = (
        "try:\n    1/0\nexcept ZeroDivisionError as error:\n    raise ValueError('b') from error\n"
    )
    done = run(job(tmp_path, text))
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "direct cause" in done.stderr
    assert "bootstrap" not in done.stderr


def test_an_exception_is_reported_too(tmp_path: Path) -> None:
    run(job(tmp_path, "raise ValueError('why ä')"))
    (line,) = (tmp_path / "report").read_text().splitlines()
    fields = json.loads(line)
    assert (fields["kind"], fields["type"], fields["message"]) == (
        "exception",
        "ValueError",
        "why ä",
    )


SHOW = (
    "import json, os, sys\n"
    "print(json.dumps([sys.argv, sys.path[0], __name__, os.getcwd(), __file__]))\n"
)


def test_a_script_sees_what_python_would_show_it(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    script = tmp_path / "jobs" / "train.py"
    script.write_text(SHOW)
    done = run(tmp_path, "--a", "b c", "", target="jobs/train.py", cwd=tmp_path / "jobs")
    argv, first, name, cwd, file = json.loads(done.stdout)
    assert argv == [str(script), "--a", "b c", ""]
    assert (first, name, cwd, file) == (
        str(script.parent),
        "__main__",
        str(script.parent),
        str(script),
    )


def test_a_module_sees_what_python_would_show_it(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    module = tmp_path / "pkg" / "train.py"
    module.write_text(SHOW)
    done = run(tmp_path, "x", kind="module", target="pkg.train")
    argv, first, name, _, file = json.loads(done.stdout)
    assert argv == [str(module), "x"]
    assert (first, name, file) == (str(tmp_path), "__main__", str(module))


def test_a_job_finds_its_own_modules_first_and_the_worker_package_too(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("own = True\n")
    (tmp_path / "sibling.py").write_text("")
    text = "import sibling\nfrom launcher import worker\nprint(worker.context().rank)\n"
    assert run(job(tmp_path, text), env={"RANK": "4"}).stdout == "4\n"


def test_a_printed_line_is_seen_at_once(tmp_path: Path) -> None:
    text = "import os\nprint('line')\nos._exit(0)\n"
    assert run(job(tmp_path, text)).stdout == "line\n"


def test_the_gate_is_not_left_in_the_environment(tmp_path: Path) -> None:
    text = "import os\nprint('FLOWLAUNCH_GATE' in os.environ)\n"
    assert run(job(tmp_path, text), env={"FLOWLAUNCH_GATE": "9"}).stdout == "False\n"


SETTINGS = """
class Part:
    host = "detected"; ctrl_port = 1; node_size = 1
class Proto:
    ctrl_bootstrap_conf = Part(); data_port = 2
def _UpdateDefaultEnvProtoByMultiClientEnvVars(proto):
    proto.ctrl_bootstrap_conf.host = "filled in"
"""
READ = """
import oneflow.framework.env_util as util
proto = util.Proto()
util._UpdateDefaultEnvProtoByMultiClientEnvVars(proto)
part = proto.ctrl_bootstrap_conf
print(part.host, part.ctrl_port, part.node_size, proto.data_port)
"""


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "filled in 1 1 2"),
        ({"FLOWLAUNCH_NODE_SIZE": "3"}, "filled in 1 3 2"),
        ({"FLOWLAUNCH_ADDR": "10.0.0.1"}, "10.0.0.1 1 1 2"),
        ({"FLOWLAUNCH_DATA_PORT": "7", "FLOWLAUNCH_CONTROL_PORT": "8"}, "filled in 8 1 7"),
    ],
)
def test_oneflows_settings_are_mended_behind_its_own_code(
    tmp_path: Path, env: dict[str, str], expected: str
) -> None:
    package = tmp_path / "oneflow" / "framework"
    package.mkdir(parents=True)
    (tmp_path / "oneflow" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "env_util.py").write_text(SETTINGS)
    assert run(job(tmp_path, READ), env=env).stdout.strip() == expected


def test_an_import_of_oneflow_that_fails_is_the_jobs_own_failure(tmp_path: Path) -> None:
    (tmp_path / "oneflow.py").write_text("raise ImportError('libcudnn.so.8')")
    done = run(job(tmp_path, "import oneflow"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ImportError: libcudnn.so.8"
    assert "bootstrap" not in done.stderr
