"""Builds the OneFlow runtime: a virtual environment of pinned wheels, proven before it counts.

A build works in a directory of its own beside the place where the runtime will stand. It is
renamed into place once its python imports OneFlow and computes, tried again there, and stamped
last; `runtime_store.find_runtime` takes nothing without a stamp.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Callable, Dict, Iterator, List, Optional, Sequence

from launcher.agent import interpreters, runtime_store
from launcher.agent.children import Runner, RuntimeBuildError
from launcher.agent.interpreters import Interpreter, Search
from launcher.agent.runtime_lock import (
    UV,
    RuntimeSpec,
    Wheel,
    requirement,
    runtime_hash,
    wheels_for,
)

Progress = Callable[[str, int, int], None]

STAGE_WAIT = "wait"
STAGE_INTERPRETER = "interpreter"
STAGE_DOWNLOAD = "download"
STAGE_INSTALL = "install"
STAGE_VERIFY = "verify"

_VENV_PATIENCE_S = 300.0
_PIP_PATIENCE_S = 900.0
_UV_PATIENCE_S = 900.0
_VERIFY_PATIENCE_S = 300.0

# Wheels over this size are installed one by one and deleted at once, so that no more than one of
# them lies beside its own contents.
_BIG_BYTES = 100000000

# What would turn an import of OneFlow into a rendezvous, or give the new environment another's
# modules or another place to install to. All other PIP_* settings are the user's and hold.
_SCRUBBED = (
    "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK", "PYTHONHOME", "PYTHONPATH",
    "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT",
    "PIP_PYTHON", "PIP_REQUIREMENT", "PIP_CONSTRAINT", "PIP_DRY_RUN",
)  # fmt: skip


def disk_full(cache: str) -> RuntimeBuildError:
    """Returns the error of a disk that filled up while it was written."""
    return RuntimeBuildError(
        "disk",
        "the disk or quota of %s is full" % cache,
        "free some space, or set FLOWLAUNCH_CACHE to a directory on another disk",
    )


class Builder:
    """One build of a runtime. The cache's lock must be held for all its life."""

    def __init__(
        self,
        cache: str,
        progress: Progress,
        should_stop: Callable[[], bool],
        spec: RuntimeSpec,
        wheels: Optional[str],
    ) -> None:
        self._cache = cache
        self._root = runtime_store.runtimes_root(cache)
        self._progress = progress
        self._spec = spec
        self._offline = wheels
        self._log = os.path.join(self._root, runtime_store.LOG_NAME)
        self._runner = Runner(self._log, should_stop)

    def build(
        self, free_bytes: Callable[[str], int], search: Callable[[str, Sequence[str]], Search]
    ) -> str:
        """Builds the runtime, puts it in its place and returns its python.

        Args:
            free_bytes: how much room there is at a path.
            search: finds an interpreter, given the cache and the minor versions wanted.

        Raises:
            RuntimeBuildError: it cannot be built. Nothing is left but the log and whole wheels.
            OSError: the cache cannot be written.
        """
        open(self._log, "wb").close()
        self._check_disk(free_bytes(self._root))
        self._staging = tempfile.mkdtemp(prefix=runtime_store.BUILD_PREFIX, dir=self._root)
        try:
            python = self._build_from(self._find_interpreter(search))
        finally:
            runtime_store.clear_leftovers(self._root)
        os.unlink(self._log)
        return python

    def _build_from(self, interpreter: Interpreter) -> str:
        directory = runtime_store.runtime_directory(self._cache, self._spec, interpreter.minor)
        environment = os.path.join(self._staging, "env")
        self._environ = self._clean_environ()
        self._make_environment(interpreter, environment)
        wheels = self._offline or self._download(environment, interpreter.minor)
        self._install(environment, wheels, interpreter.minor)
        self._verify(environment)
        _drop_scripts(environment)
        runtime_store.set_aside(directory)
        os.rename(environment, directory)
        self._verify(directory)
        runtime_store.write_stamp(directory, _standard_library(directory))
        if not self._offline:
            shutil.rmtree(wheels, ignore_errors=True)
        return runtime_store.runtime_python(directory)

    def _check_disk(self, free: int) -> None:
        needed = self._spec.needed_bytes
        if free < needed:
            raise RuntimeBuildError(
                "disk",
                "the OneFlow runtime needs %.1f GB in %s; there are %.1f GB free"
                % (needed / 1e9, self._cache, free / 1e9),
                "free some space, or set FLOWLAUNCH_CACHE to a directory on a bigger disk",
            )

    # The interpreter

    def _find_interpreter(self, search: Callable[[str, Sequence[str]], Search]) -> Interpreter:
        self._progress(STAGE_INTERPRETER, 0, 0)
        result = search(self._cache, self._spec.pythons)
        if result.found is not None:
            return result.found
        self._runner.check_stop()
        found, tried = self._ask_uv()
        if found is not None:
            return found
        raise _no_interpreter(self._spec, result, tried)

    def _ask_uv(self) -> "tuple[Optional[Interpreter], str]":
        """Returns an interpreter that uv knows or fetches, or what became of the try."""
        uv = interpreters.uv_program(self._cache) or self._fetch_uv()
        if uv is None:
            return None, "uv could not be installed (%s)" % self._last_words()
        found = self._uv_interpreter(uv)
        if found is not None:
            return found, ""
        os.makedirs(interpreters.uv_pythons(self._cache), exist_ok=True)
        argv = [uv, "python", "install", self._spec.pythons[0]]
        self._runner.run(argv, interpreters.uv_environ(self._cache), _UV_PATIENCE_S)
        words = (self._spec.pythons[0], self._last_words())
        return self._uv_interpreter(uv), "uv could not fetch CPython %s (%s)" % words

    def _uv_interpreter(self, uv: str) -> Optional[Interpreter]:
        for path in interpreters.uv_found(uv, self._cache, self._spec.pythons):
            answer = interpreters.probe(path, self._spec.pythons)
            if isinstance(answer, Interpreter):
                return answer
        return None

    def _fetch_uv(self) -> Optional[str]:
        """Installs uv into the cache by the running interpreter's pip."""
        home = interpreters.uv_home(self._cache)
        for pip in self._own_pips():
            argv = pip + self._pip_target(UV, home, "3.8")
            if self._runner.run(argv, self._clean_environ(), _PIP_PATIENCE_S) == 0:
                return interpreters.uv_program(self._cache)
        return None

    def _own_pips(self) -> Iterator[List[str]]:
        """Yields ways to run a pip that the running interpreter has or can make."""
        yield [sys.executable, "-m", "pip"]
        place = os.path.join(self._staging, "pip-env")
        argv = [sys.executable, "-m", "venv", place]
        if self._runner.run(argv, self._clean_environ(), _VENV_PATIENCE_S) == 0:
            yield [runtime_store.runtime_python(place), "-m", "pip"]

    # The environment

    def _clean_environ(self) -> Dict[str, str]:
        environ = {name: os.environ[name] for name in os.environ if name not in _SCRUBBED}
        temporary = os.path.join(self._staging, "tmp")
        os.makedirs(temporary, exist_ok=True)
        # pip's downloads in the making lie here: on the disk that was measured, seen as progress.
        environ["TMPDIR"] = temporary
        environ["PIP_USER"] = "0"
        environ["GLOG_minloglevel"] = "2"
        return environ

    def _make_environment(self, interpreter: Interpreter, environment: str) -> None:
        argv = [interpreter.path, "-m", "venv", environment]
        if interpreter.has_ensurepip:
            if self._runner.run(argv, self._environ, _VENV_PATIENCE_S) == 0:
                return
            shutil.rmtree(environment, ignore_errors=True)
        argv.insert(3, "--without-pip")
        if self._runner.run(argv, self._environ, _VENV_PATIENCE_S) != 0:
            raise self._no_venv(interpreter)
        if not self._borrow_pip(interpreter, environment):
            raise self._no_venv(interpreter)

    def _borrow_pip(self, interpreter: Interpreter, environment: str) -> bool:
        """Puts pip into an environment by any pip that runs. Returns whether one did."""
        target = os.path.join(environment, "lib", "python" + interpreter.minor, "site-packages")
        install = self._pip_target(self._spec.pip, target, interpreter.minor)
        return any(
            self._runner.run(pip + install, self._environ, _PIP_PATIENCE_S) == 0
            for pip in self._pips(interpreter, environment)
        )

    def _pips(self, interpreter: Interpreter, environment: str) -> Iterator[List[str]]:
        if self._offline:  # a wheel of pip can run without being installed
            file = "pip-%s-py3-none-any.whl" % self._spec.pip.version
            inside = os.path.join(self._offline, file, "pip")
            yield [runtime_store.runtime_python(environment), inside]
        yield [interpreter.path, "-m", "pip"]
        for pip in self._own_pips():
            yield pip

    def _pip_target(self, wheel: Wheel, target: str, minor: str) -> List[str]:
        """Returns pip's arguments to install one wheel for another Python than pip's own."""
        listed = self._requirements("%s.txt" % wheel.name, [wheel])
        where = ["--upgrade", "--target", target, "--python-version", minor]
        return [*self._pip_options("install"), *where, "-r", listed]

    def _no_venv(self, interpreter: Interpreter) -> RuntimeBuildError:
        return RuntimeBuildError(
            "venv",
            "%s cannot make a virtual environment with pip: %s"
            % (interpreter.path, self._last_words()),
            "install its venv and ensurepip modules (Debian, Ubuntu: apt install python%s-venv)"
            % interpreter.minor,
        )

    # The wheels

    def _download(self, environment: str, minor: str) -> str:
        """Fetches every wheel that an earlier build has not left here. Returns their directory."""
        name = runtime_store.WHEELS_PREFIX + runtime_hash(self._spec, minor)
        wheels = os.path.join(self._root, name)
        os.makedirs(wheels, exist_ok=True)
        wanted = wheels_for(self._spec, minor)
        listed = self._requirements("download.txt", wanted)
        argv = [
            runtime_store.runtime_python(environment),
            "-m",
            "pip",
            *self._pip_options("download"),
        ]
        # The wheels stay here until they are installed. A second copy in pip's cache would be
        # 1.8 GB for nothing, and older pips hold a whole wheel in memory to put it there.
        if "PIP_CACHE_DIR" not in os.environ:
            argv.append("--no-cache-dir")
        folders = [wheels, os.path.join(self._staging, "tmp")]
        measure = self._meter(STAGE_DOWNLOAD, folders, sum(wheel.size for wheel in wanted))
        argv += ["-d", wheels, "-r", listed]
        if self._runner.run(argv, self._environ, _PIP_PATIENCE_S, measure) != 0:
            raise self._pip_failed("the runtime's packages could not be downloaded")
        measure()
        return wheels

    def _install(self, environment: str, wheels: str, minor: str) -> None:
        wanted = wheels_for(self._spec, minor)
        library = os.path.join(environment, "lib")
        measure = self._meter(STAGE_INSTALL, [library], self._spec.installed_bytes)
        batches = [[wheel] for wheel in wanted if wheel.size > _BIG_BYTES]
        batches.append([wheel for wheel in wanted if wheel.size <= _BIG_BYTES])
        for batch in filter(None, batches):
            self._install_batch(environment, wheels, batch, measure)

    def _install_batch(
        self, environment: str, wheels: str, batch: List[Wheel], measure: Callable[[], int]
    ) -> None:
        listed = self._requirements("install.txt", batch)
        argv = [runtime_store.runtime_python(environment), "-m", "pip"]
        argv += [*self._pip_options("install", wheels), "-r", listed]
        if self._runner.run(argv, self._environ, _PIP_PATIENCE_S, measure) != 0:
            raise self._pip_failed("the runtime's packages could not be installed")
        measure()
        if not self._offline and len(batch) == 1 and batch[0].size > _BIG_BYTES:
            _delete_wheel(wheels, batch[0])

    def _pip_options(self, command: str, wheels: Optional[str] = None) -> List[str]:
        options = [
            command, "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
            "--no-deps", "--only-binary=:all:", "--require-hashes",
        ]  # fmt: skip
        wheels = wheels or self._offline
        return options + (["--no-index", "--find-links", wheels] if wheels else [])

    def _requirements(self, name: str, wheels: Sequence[Wheel]) -> str:
        path = os.path.join(self._staging, name)
        with open(path, "w", encoding="ascii") as listed:
            listed.writelines(requirement(wheel) + "\n" for wheel in wheels)
        return path

    def _meter(self, stage: str, folders: List[str], total: int) -> Callable[[], int]:
        """Returns a function that reports and returns how many bytes these folders hold."""
        highest = 0

        def measure() -> int:
            nonlocal highest
            # pip moves what it downloaded by copying and deleting: never run backwards or over.
            size = sum(_tree_bytes(folder) for folder in folders)
            highest = max(highest, min(size, total))
            self._progress(stage, highest, total)
            return size

        return measure

    def _pip_failed(self, what: str) -> RuntimeBuildError:
        tail = self._runner.tail()
        if re.search(r"No space left|Disk quota|Errno 28\b|Errno 122\b", tail):
            return disk_full(self._cache)
        if "DO NOT MATCH THE HASHES" in tail:
            return RuntimeBuildError(
                "hash",
                what + ": a file is not the one that was pinned\n" + tail,
                "the index or a proxy serves something else; see pip's --index-url setting",
            )
        if self._offline is None and re.search(_NO_INDEX, tail):
            return RuntimeBuildError(
                "index",
                what + ": the package index does not answer, or lacks one of them\n" + tail,
                "check the network, http_proxy/https_proxy and pip's own configuration (pip config"
                " list); pip's PIP_INDEX_URL names another index; or let the launcher's machine"
                " send the packages: flowlaunch provision --offline",
            )
        return RuntimeBuildError("install", what + "\n" + tail, "see " + self._log)

    # The proof

    def _verify(self, directory: str) -> None:
        self._progress(STAGE_VERIFY, 0, 0)
        argv = [runtime_store.runtime_python(directory), "-I", "-c", self._spec.verify]
        self._runner.note("verifying " + directory)
        code = self._runner.run(argv, self._environ, _VERIFY_PATIENCE_S)
        if code != 0:
            raise RuntimeBuildError(
                "verify",
                "the new runtime does not work (exit code %d)\n%s" % (code, self._runner.tail()),
                "see %s; if the cache's disk is mounted noexec, set FLOWLAUNCH_CACHE to another"
                % self._log,
            )

    def _last_words(self) -> str:
        lines = self._runner.tail().splitlines()
        return lines[-1].strip() if lines else "no output"


_NO_INDEX = (
    r"Could not find a version|No matching distribution|Max retries exceeded|NewConnectionError"
    r"|ConnectTimeout|ReadTimeout|timed out|ProxyError|SSLError|Temporary failure|Connection"
)


def _no_interpreter(spec: RuntimeSpec, result: Search, uv: str) -> RuntimeBuildError:
    wanted = " or ".join(spec.pythons)
    lines = ["install CPython %s with its venv module, so that it is on PATH" % spec.pythons[0]]
    lines[0] += " (Debian, Ubuntu: apt install python{0} python{0}-venv)".format(spec.pythons[0])
    lines.append("tried:")
    lines += ["  %s: %s" % tuple(rejection) for rejection in result.rejections] or ["  nothing"]
    lines.append("  " + uv)
    lines.append("looked in: " + ", ".join(result.looked_in))
    return RuntimeBuildError(
        "interpreter",
        "OneFlow 0.9.0 needs CPython %s, and none was found" % wanted,
        "\n".join(lines),
    )


def _standard_library(directory: str) -> str:
    """Returns a file of the standard library that a runtime's python uses."""
    argv = [runtime_store.runtime_python(directory), "-I", "-c", "import os; print(os.__file__)"]
    return subprocess.check_output(argv, timeout=_VERIFY_PATIENCE_S).decode("utf-8").strip()


def _drop_scripts(environment: str) -> None:
    """Removes all of bin/ but python: a script's first line names a place that will be gone."""
    folder = os.path.join(environment, "bin")
    for name in os.listdir(folder):
        if not name.startswith("python"):
            os.unlink(os.path.join(folder, name))


def _delete_wheel(wheels: str, wheel: Wheel) -> None:
    prefix = "%s-%s-" % (re.sub("[-.]", "_", wheel.name), wheel.version)
    for name in os.listdir(wheels):
        if name.startswith(prefix):
            os.unlink(os.path.join(wheels, name))


def _tree_bytes(folder: str) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # pip deletes as it goes
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
