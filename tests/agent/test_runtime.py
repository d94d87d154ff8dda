"""The runtime, built for real from a lock of one small wheel that the test makes itself."""

import base64
import contextlib
import ensurepip
import functools
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import launcher
from launcher.agent import interpreters, runtime
from launcher.agent.interpreters import Interpreter, Rejection, Search
from launcher.agent.runtime_lock import ANY, SPEC, RuntimeSpec, Wheel, wheels_for

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
ROOT = Path(launcher.__file__).parent.parent
NO_PIP = Wheel("pip", "0.0.1", ANY, 1, "0" * 64)
VERIFY = "import tinyflow; raise SystemExit(tinyflow.product() != 6)"
DEADLINE_S = 60.0


class Shop(NamedTuple):
    """A folder that serves wheels, and the spec whose lock names them."""

    wheels: str
    spec: RuntimeSpec


def make_wheel(folder: Path) -> Wheel:
    files = {
        "tinyflow/__init__.py": b"from tinyflow.nested import product\n",
        "tinyflow/nested/__init__.py": b"from .deep import product\n",
        "tinyflow/nested/deep.py": b"def product():\n    return 2 * 3\n",
        "tinyflow/libtiny.so.8": os.urandom(200000),
        "tinyflow-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tinyflow\nVersion: 1.0\n",
        "tinyflow-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    rows = [f"{name},sha256={_urlsafe(data)},{len(data)}\n" for name, data in files.items()]
    record = "".join(rows)
    files["tinyflow-1.0.dist-info/RECORD"] = record.encode() + b"tinyflow-1.0.dist-info/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    content = buffer.getvalue()
    (folder / "tinyflow-1.0-py3-none-any.whl").write_bytes(content)
    return Wheel("tinyflow", "1.0", ANY, len(content), hashlib.sha256(content).hexdigest())


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("wheels")
    wheel = make_wheel(folder)
    return Shop(str(folder), RuntimeSpec((wheel,), (HERE,), VERIFY, 20000000, 1000, NO_PIP))


@pytest.fixture(autouse=True)
def index(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shop is all that pip knows, by the settings that a user would make."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", shop.wheels)


def running_only(cache: str, pythons: Sequence[str]) -> Search:
    return interpreters.search_in([], pythons)


def build(cache: Path, spec: RuntimeSpec, **options: object) -> str:
    arguments: dict[str, object] = {"search": running_only, **options}
    return runtime.build_runtime(str(cache), spec=spec, **arguments)  # type: ignore[arg-type]


def failure(cache: Path, spec: RuntimeSpec, **options: object) -> runtime.RuntimeBuildError:
    with pytest.raises(runtime.RuntimeBuildError) as caught:
        build(cache, spec, **options)
    assert runtime.find_runtime(str(cache), spec) is None
    return caught.value


def names_in(folder: Path) -> "set[str]":
    return {entry.name for entry in folder.iterdir()}


def entries(cache: Path) -> "set[str]":
    return names_in(cache / "runtime")


@pytest.fixture(scope="module")
def pristine(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("pristine")
    build(cache, shop.spec, wheels=shop.wheels)
    return cache


@pytest.fixture
def built(pristine: Path, tmp_path: Path) -> Path:
    """A cache with a whole runtime, to be damaged at will."""
    return Path(shutil.copytree(pristine, tmp_path / "cache", symlinks=True))


def directory_of(cache: Path, spec: RuntimeSpec) -> Path:
    return cache / "runtime" / runtime.runtime_hash(spec, HERE)


# A build that goes well


def test_a_build_ends_with_a_python_that_computes(shop: Shop, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    python = build(tmp_path, shop.spec, progress=lambda *now: seen.append(now))
    assert python == str(directory_of(tmp_path, shop.spec) / "bin" / "python")
    code = "import tinyflow; print(tinyflow.product())"
    assert subprocess.check_output([python, "-c", code]) == b"6\n"
    assert runtime.find_runtime(str(tmp_path), shop.spec) == python
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["interpreter", "download", "install", "verify"]
    for stage, total in (("download", shop.spec.wheels[0].size), ("install", 20000000)):
        done = [now[1] for now in seen if now[0] == stage]
        assert done == sorted(done)
        assert max(done) <= total
        assert {now[2] for now in seen if now[0] == stage} == {total}
    assert ("download", shop.spec.wheels[0].size, shop.spec.wheels[0].size) in seen
    assert entries(tmp_path) == {".lock", runtime.runtime_hash(shop.spec, HERE)}
    scripts = names_in(directory_of(tmp_path, shop.spec) / "bin")
    assert all(name.startswith("python") for name in scripts)


def test_a_whole_runtime_is_not_built_again(built: Path, shop: Shop) -> None:
    before = directory_of(built, shop.spec).stat().st_ino
    seen: list[str] = []
    python = build(built, shop.spec, progress=lambda stage, *_: seen.append(stage))
    assert python == runtime.find_runtime(str(built), shop.spec)
    assert seen == []
    assert directory_of(built, shop.spec).stat().st_ino == before


def test_offline_wheels_are_only_read(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    before = names_in(Path(shop.wheels))
    python = build(tmp_path, shop.spec, wheels=shop.wheels)
    assert runtime.find_runtime(str(tmp_path), shop.spec) == python
    assert names_in(Path(shop.wheels)) == before


def test_a_job_s_environment_does_not_reach_the_build(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = "import os; raise SystemExit('RANK' in os.environ or 'http_proxy' not in os.environ)"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "astray"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    build(tmp_path, shop.spec._replace(verify=strict))
    assert not (tmp_path / "astray").exists()


# What is no whole runtime


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def other_interpreter(stamp_path: Path) -> None:
    stamp = json.loads(stamp_path.read_text())
    stamp_path.write_text(json.dumps({**stamp, "interpreter": "/usr/bin/another"}))


PACKAGE = f"lib/python{HERE}/site-packages/tinyflow"
DAMAGES: "dict[str, tuple[str, Callable[[Path], object]]]" = {
    "shared object cut short": (PACKAGE + "/libtiny.so.8", cut_short),
    "shared object gone": (PACKAGE + "/libtiny.so.8", Path.unlink),
    "package gone": (PACKAGE + "/nested", shutil.rmtree),
    "module gone": (PACKAGE + "/nested/deep.py", Path.unlink),
    "never stamped": ("flowlaunch.json", Path.unlink),
    "stamp cut short": ("flowlaunch.json", cut_short),
    "stamp of another form": ("flowlaunch.json", lambda path: path.write_text("[1]")),
    "stamp names no files": ("flowlaunch.json", lambda path: path.write_text('{"files":{}}')),
    "another interpreter": ("flowlaunch.json", other_interpreter),
    "python gone": ("bin/python", Path.unlink),
    "environment's settings gone": ("pyvenv.cfg", Path.unlink),
    "all gone but the stamp": ("lib", shutil.rmtree),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_runtime_is_not_found(built: Path, shop: Shop, damage: str) -> None:
    assert runtime.find_runtime(str(built), shop.spec) is not None
    name, act = DAMAGES[damage]
    act(directory_of(built, shop.spec) / name)
    assert runtime.find_runtime(str(built), shop.spec) is None


def test_a_python_that_leads_nowhere_is_not_found(built: Path, shop: Shop) -> None:
    python = directory_of(built, shop.spec) / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python")
    assert runtime.find_runtime(str(built), shop.spec) is None


def test_a_damaged_runtime_is_replaced(built: Path, shop: Shop) -> None:
    cut_short(directory_of(built, shop.spec) / PACKAGE / "libtiny.so.8")
    python = build(built, shop.spec)
    assert runtime.find_runtime(str(built), shop.spec) == python
    assert entries(built) == {".lock", runtime.runtime_hash(shop.spec, HERE)}


def test_an_empty_cache_holds_nothing(tmp_path: Path, shop: Shop) -> None:
    assert runtime.find_runtime(str(tmp_path / "none"), shop.spec) is None


# Builders that meet, stop and die

DRIVER = """
import json, sys
from launcher.agent import interpreters, runtime
from launcher.agent.runtime_lock import RuntimeSpec, Wheel
cache, wheels, fields = json.loads(sys.argv[1])
fields[0] = tuple(Wheel(*wheel) for wheel in fields[0])
print(runtime.build_runtime(
    cache, lambda stage, done, total: print(stage, flush=True), spec=RuntimeSpec(*fields),
    wheels=wheels, search=lambda cache, pythons: interpreters.search_in([], pythons)))
"""


@contextlib.contextmanager
def builder(cache: Path, shop: Shop, verify: str) -> "Iterator[subprocess.Popen[str]]":
    """A builder as a process of its own, ended with the block."""
    order = json.dumps([str(cache), shop.wheels, list(shop.spec._replace(verify=verify))])
    child = subprocess.Popen(
        [sys.executable, "-c", DRIVER, order],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def wait_until(condition: "Callable[[], bool]", what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain: " + what
        tick.wait(0.02)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def held_verify(marker: Path) -> str:
    """A verification that says its pid and then takes for ever."""
    return (
        f"import os, signal; path = {str(marker)!r}\n"
        "open(path + '.new', 'w').write(str(os.getpid())); os.rename(path + '.new', path)\n"
        "signal.pause()"
    )


def test_of_two_builders_one_builds_and_both_find_it(shop: Shop, tmp_path: Path) -> None:
    with builder(tmp_path, shop, VERIFY) as first, builder(tmp_path, shop, VERIFY) as second:
        outputs = [child.communicate(timeout=DEADLINE_S)[0] for child in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert sorted("install" in output for output in outputs) == [False, True]
    ends = {output.splitlines()[-1] for output in outputs}
    assert ends == {runtime.find_runtime(str(tmp_path), shop.spec)}


def test_a_builder_killed_midway_leaves_nothing_that_counts(shop: Shop, tmp_path: Path) -> None:
    marker = tmp_path / "verifying"
    cache = tmp_path / "cache"
    with builder(cache, shop, held_verify(marker)) as child:
        wait_until(marker.exists, "the first builder verifies")
        child.send_signal(signal.SIGKILL)
        child.wait(DEADLINE_S)
    wait_until(lambda: not lives(int(marker.read_text())), "its child ends with it")
    assert runtime.find_runtime(str(cache), shop.spec) is None
    assert any(name.startswith(".build-") for name in entries(cache))
    python = build(cache, shop.spec)
    assert runtime.find_runtime(str(cache), shop.spec) == python
    assert entries(cache) == {".lock", runtime.runtime_hash(shop.spec, HERE)}


def test_a_build_can_be_stopped(shop: Shop, tmp_path: Path) -> None:
    marker = tmp_path / "verifying"
    cache = tmp_path / "cache"
    spec = shop.spec._replace(verify=held_verify(marker))
    error = failure(cache, spec, should_stop=marker.exists)
    assert error.problem == "stopped"
    assert not lives(int(marker.read_text()))
    assert not any(name.startswith(".build-") for name in entries(cache))


def test_a_waiting_builder_can_be_stopped(shop: Shop, tmp_path: Path) -> None:
    marker = tmp_path / "verifying"
    cache = tmp_path / "cache"
    waited: list[str] = []
    with builder(cache, shop, held_verify(marker)):
        wait_until(marker.exists, "the first builder verifies")
        error = failure(
            cache,
            shop.spec,
            progress=lambda stage, *_: waited.append(stage),
            should_stop=lambda: len(waited) > 2,
        )
    assert error.problem == "stopped"
    assert set(waited) == {"wait"}


# What can be wrong


def test_no_interpreter_names_all_that_was_tried(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    rejection = Rejection("/shims/python3.10", "exit code 127: pyenv: not found")
    found = Search(None, (rejection,), ("/shims", "/opt/python/bin"))
    spec = shop.spec._replace(pythons=("3.10", "3.9"))
    error = failure(tmp_path, spec, search=lambda cache, pythons: found)
    assert error.problem == "interpreter"
    assert error.message == "OneFlow 0.9.0 needs CPython 3.10 or 3.9, and none was found"
    assert "/shims/python3.10: exit code 127: pyenv: not found" in error.hint
    assert "looked in: /shims, /opt/python/bin" in error.hint
    assert "uv could not be installed" in error.hint
    assert "apt install python3.10 python3.10-venv" in error.hint


@functools.lru_cache(maxsize=1)
def real_interpreter() -> Interpreter:
    found = running_only("", [HERE]).found
    assert found is not None
    return found


def without_ensurepip(folder: Path) -> Interpreter:
    """A copy of the running interpreter as Debian ships it without its venv package."""
    real = Path(real_interpreter().path)
    library = Path(ensurepip.__file__).parent.parent
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / library.name).mkdir(parents=True)
    for entry in library.iterdir():
        if entry.name not in ("ensurepip", "site-packages", "dist-packages"):
            (folder / "lib" / library.name / entry.name).symlink_to(entry)
    shutil.copy(real, folder / "bin" / f"python{HERE}")
    answer = interpreters.probe(str(folder / "bin" / f"python{HERE}"), [HERE])
    assert isinstance(answer, Interpreter)
    assert not answer.has_ensurepip
    return answer


def found_as(interpreter: Interpreter) -> "Callable[[str, Sequence[str]], Search]":
    return lambda cache, pythons: Search(interpreter, (), ())


def test_without_ensurepip_and_pip_the_package_is_named(shop: Shop, tmp_path: Path) -> None:
    bare = without_ensurepip(tmp_path / "debian")
    error = failure(tmp_path / "cache", shop.spec, search=found_as(bare))
    assert error.problem == "venv"
    assert str(tmp_path / "debian") in error.message
    assert f"apt install python{HERE}-venv" in error.hint


def test_without_ensurepip_a_wheel_of_pip_will_do(shop: Shop, tmp_path: Path) -> None:
    bare = without_ensurepip(tmp_path / "debian")
    folders = [Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")]
    pip = next(wheel for folder in folders for wheel in folder.glob("pip-*-py3-none-any.whl"))
    wheels = Path(shutil.copytree(shop.wheels, tmp_path / "wheels"))
    content = pip.read_bytes()
    (wheels / pip.name).write_bytes(content)
    locked = Wheel("pip", pip.name.split("-")[1], ANY, 1, hashlib.sha256(content).hexdigest())
    spec = shop.spec._replace(pip=locked)
    python = build(tmp_path / "cache", spec, wheels=str(wheels), search=found_as(bare))
    assert runtime.find_runtime(str(tmp_path / "cache"), spec) == python


def test_a_small_disk_is_noticed_before_anything_is_done(shop: Shop, tmp_path: Path) -> None:
    spec = shop.spec._replace(needed_bytes=5000000000)
    stages: list[str] = []
    error = failure(
        tmp_path,
        spec,
        free_bytes=lambda path: 1200000000,
        progress=lambda stage, *_: stages.append(stage),
    )
    assert error.problem == "disk"
    assert error.message == (
        f"the OneFlow runtime needs 5.0 GB in {tmp_path}; there are 1.2 GB free"
    )
    assert "FLOWLAUNCH_CACHE" in error.hint
    assert stages == []


def test_a_cache_that_cannot_be_written_is_named(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    error = failure(tmp_path / "file" / "cache", shop.spec)
    assert error.problem == "cache"
    assert str(tmp_path / "file" / "cache") in error.message


def test_an_index_that_does_not_answer_is_said(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    error = failure(tmp_path, shop.spec)
    assert error.problem == "index"
    assert "http_proxy" in error.hint
    assert "127.0.0.1" in error.message


def test_a_wheel_that_is_not_the_pinned_one_is_refused(shop: Shop, tmp_path: Path) -> None:
    spec = shop.spec._replace(wheels=(shop.spec.wheels[0]._replace(sha256="1" * 64),))
    assert failure(tmp_path, spec).problem == "hash"


def test_a_runtime_that_computes_wrongly_never_counts(shop: Shop, tmp_path: Path) -> None:
    spec = shop.spec._replace(verify="raise SystemExit('computes wrongly: 7 instead of 6')")
    error = failure(tmp_path, spec)
    assert error.problem == "verify"
    assert "computes wrongly: 7 instead of 6" in error.message
    left = entries(tmp_path) - {".lock", "build.log"}
    assert all(name.startswith(".wheels-") for name in left)


def test_a_runtime_that_fails_in_its_final_place_never_counts(shop: Shop, tmp_path: Path) -> None:
    spec = shop.spec._replace(
        verify="import sys; raise SystemExit('/.build-' not in sys.prefix and 'moved badly')"
    )
    assert "moved badly" in failure(tmp_path, spec).message


@pytest.mark.parametrize(
    ("system", "machine", "libc"),
    [
        ("Linux", "aarch64", "glibc 2.31"),
        ("Linux", "x86_64", ""),
        ("Linux", "x86_64", "glibc 2.12"),
        ("Darwin", "x86_64", ""),
    ],
)
def test_a_platform_without_binaries_is_said(system: str, machine: str, libc: str) -> None:
    with pytest.raises(runtime.RuntimeBuildError) as caught:
        runtime.check_platform(system, machine, libc)
    assert caught.value.problem == "platform"
    assert "OneFlow 0.9.0 has binaries only for Linux on x86-64" in caught.value.message


# The cache and the lock


def test_removal_leaves_nothing(built: Path, shop: Shop) -> None:
    (built / "uv").mkdir()
    assert runtime.remove_runtime(str(built))
    assert runtime.find_runtime(str(built), shop.spec) is None
    assert entries(built) == {".lock"}
    assert not (built / "uv").exists()
    assert not runtime.remove_runtime(str(built))
    assert not runtime.remove_runtime(str(built / "none"))


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("FLOWLAUNCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert runtime.cache_directory() == "/home/ada/.cache/flowlaunch"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/ada")
    assert runtime.cache_directory() == "/var/ada/flowlaunch"
    monkeypatch.setenv("FLOWLAUNCH_CACHE", "~/fl")
    assert runtime.cache_directory() == "/home/ada/fl"


@pytest.mark.parametrize("minor", SPEC.pythons)
def test_the_lock_is_whole_for_every_python(minor: str) -> None:
    wheels = wheels_for(SPEC, minor)
    names = [wheel.name for wheel in wheels]
    assert len(names) == len(set(names))
    assert {"oneflow", "numpy", "nvidia-cudnn-cu11", "nvidia-cublas-cu11", "pillow"} <= set(names)
    assert all(re.fullmatch("[0-9a-f]{64}", wheel.sha256) for wheel in wheels)
    assert 1.8e9 < sum(wheel.size for wheel in wheels) < 1.9e9


def test_the_directory_s_name_follows_lock_and_version(shop: Shop) -> None:
    names = {runtime.runtime_hash(SPEC, minor) for minor in SPEC.pythons}
    changed = SPEC._replace(wheels=(SPEC.wheels[0]._replace(sha256="0" * 64), *SPEC.wheels[1:]))
    names.add(runtime.runtime_hash(changed, SPEC.wheels[0].python))
    assert len(names) == len(SPEC.pythons) + 1
    assert runtime.runtime_hash(SPEC._replace(verify=""), "3.10") in names
