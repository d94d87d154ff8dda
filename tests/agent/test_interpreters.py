"""Finding an interpreter: candidates are run, and names prove nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import launcher
from launcher.agent import interpreters
from launcher.agent.interpreters import Interpreter, Rejection, Search, probe, search_in

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
ROOT = Path(launcher.__file__).parent.parent


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return path


def pretender(path: Path, **facts: object) -> Path:
    """A program that answers the probe as a good CPython 3.10 would, but for `facts`."""
    answer = {
        "path": str(path),
        "name": "CPython",
        "version": "3.10.4",
        "wide": True,
        "modules": ["ssl", "venv", "ensurepip"],
    }
    return program(path, f"cat <<'EOF'\n{json.dumps({**answer, **facts})}\nEOF\n")


def found_in(folder: Path, *pythons: str) -> Search:
    return search_in([str(folder)], pythons or ("3.10", "3.9", "3.8"))


def test_the_running_interpreter_answers_with_its_real_program() -> None:
    answer = probe(sys.executable, [HERE])
    assert isinstance(answer, Interpreter)
    assert answer.minor == HERE
    code = "import sys; print(sys.prefix == sys.base_prefix)"
    assert subprocess.check_output([answer.path, "-c", code]) == b"True\n"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"name": "PyPy"}, "is PyPy 3.10.4"),
        ({"version": "3.11.2"}, "is CPython 3.11.2"),
        ({"version": "3.1.0"}, "is CPython 3.1.0"),
        ({"wide": False}, "is a 32-bit build"),
        ({"modules": ["venv"]}, "was built without ssl"),
        ({"modules": ["ssl"]}, "has no venv module: install python3.10-venv"),
    ],
)
def test_a_python_that_will_not_do_is_rejected_with_the_reason(
    tmp_path: Path, facts: "dict[str, object]", reason: str
) -> None:
    path = str(pretender(tmp_path / "python3.10", **facts))
    assert probe(path, ["3.10"]) == Rejection(path, reason)


def test_a_shim_that_exits_with_127_is_rejected_with_its_words(tmp_path: Path) -> None:
    path = program(tmp_path / "python3.10", "echo 'pyenv: python3.10: not found' >&2; exit 127\n")
    result = found_in(tmp_path)
    assert Rejection(str(path), "exit code 127: pyenv: python3.10: not found") in result.rejections


def test_programs_that_are_no_python_are_rejected(tmp_path: Path) -> None:
    program(tmp_path / "python3.10", "echo hello\n")
    (tmp_path / "python3.9").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "python3.9").chmod(0o755)
    (tmp_path / "python3.8").write_text("not executable")
    (tmp_path / "python3").symlink_to("nowhere")
    tried = {Path(path).name: reason for path, reason in found_in(tmp_path, "3.10").rejections}
    assert tried["python3.10"] == "does not answer as a Python does"
    result = {Path(path).name: why for path, why in found_in(tmp_path).rejections}
    assert "format" in result["python3.9"]
    assert "python3.8" not in result
    assert "python3" not in result


def test_a_python_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreters, "_PROBE_TIMEOUT_S", 0.2)
    path = program(tmp_path / "python3.10", "exec sleep 60\n")
    assert probe(str(path), ["3.10"]) == Rejection(str(path), "no answer in 0 s")


def test_the_preferred_version_wins_over_one_met_earlier(tmp_path: Path) -> None:
    pretender(tmp_path / "a" / "python3.9", version="3.9.2")
    wanted = pretender(tmp_path / "b" / "python3", version="3.10.1")
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    found = search_in(folders, ["3.10", "3.9"]).found
    assert found is not None
    assert found.path == str(wanted)


def test_one_without_ensurepip_is_taken_only_for_want_of_another(tmp_path: Path) -> None:
    bare = pretender(tmp_path / "python3.10", modules=["ssl", "venv"])
    assert found_in(tmp_path).found == Interpreter(str(bare), "3.10", has_ensurepip=False)
    full = pretender(tmp_path / "python3.8", version="3.8.10")
    assert found_in(tmp_path).found == Interpreter(str(full), "3.8", has_ensurepip=True)


def test_a_wrapper_that_talks_first_is_understood(tmp_path: Path) -> None:
    wrapper = program(
        tmp_path / "python3", f"echo 'module python loaded'\nexec {sys.executable} \"$@\"\n"
    )
    assert isinstance(probe(str(wrapper), [HERE]), Interpreter)


def test_version_managers_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "elsewhere"))
    cache = tmp_path / "cache"
    expected = [
        tmp_path / ".pyenv/versions/3.10.4/bin",
        tmp_path / "elsewhere/versions/3.9.1/bin",
        cache / "python/cpython-3.10/bin",
    ]
    for folder in expected:
        folder.mkdir(parents=True)
    folders = interpreters.library_folders(str(cache))
    assert {str(folder) for folder in expected} <= set(folders)


def test_uv_is_asked_for_what_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = pretender(tmp_path / "hidden" / "python3.9", version="3.9.9")
    uv = program(
        tmp_path / "bin" / "uv",
        f'for last; do :; done\n[ "$last" = 3.9 ] && echo {python} && exit 0\nexit 2\n',
    )
    monkeypatch.setenv("PATH", f"{uv.parent}:{os.environ['PATH']}")
    cache = str(tmp_path / "cache")
    assert interpreters.uv_program(cache) == str(uv)
    assert interpreters.uv_found(str(uv), cache, ["3.10", "3.9"]) == [str(python)]


def old_and_new_pythons() -> "list[str]":
    """Every CPython from 3.7 on that this machine has, by one path each."""
    minors = [f"3.{minor}" for minor in range(7, 15)]
    paths: dict[str, str] = {}
    for folder in interpreters.library_folders("/nonexistent"):
        for path in Path(folder).glob("python3.*[0-9]"):
            answer = probe(str(path), minors)
            if isinstance(answer, Interpreter):
                paths.setdefault(answer.minor, answer.path)
    return [paths[minor] for minor in minors if minor in paths]


@pytest.mark.parametrize("python", old_and_new_pythons())
def test_the_search_runs_under_every_python_of_this_machine(python: str, tmp_path: Path) -> None:
    good = pretender(tmp_path / "python3.10")
    code = (
        "import sys; from launcher.agent import interpreters, runtime\n"
        "print(interpreters.search_in([sys.argv[1]], ['3.10']).found.path)\n"
        "print(runtime.find_runtime(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [python, "-B", "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    path, found = done.stdout.splitlines()
    # Where the running one is a 3.10 itself, that is taken.
    assert path in (str(good), python)
    assert found == "None"
