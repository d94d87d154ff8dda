"""Finds a CPython that can carry the OneFlow runtime, or fetches one with uv.

A name proves nothing: a pyenv shim called python3.10 exits with 127 while another version is
selected, a distribution's python3.10 may lack ensurepip, a python3 may be PyPy. So every
candidate is run and asked.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import glob
import json
import os
import re
import subprocess
import sys
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

_PROBE_TIMEOUT_S = 30.0

# Answers on the last line of stdout, since a wrapper script may print before it.
_PROBE = """
import json, os, platform, sys
def has(name):
    try:
        module = __import__(name)
        return name != "ensurepip" or bool(module.version())
    except Exception:
        return False
base = getattr(sys, "_base_executable", None) or sys.executable
print("")
print(json.dumps({
    "path": base if os.access(base, os.X_OK) else sys.executable,
    "name": platform.python_implementation(),
    "version": "%d.%d.%d" % tuple(sys.version_info[:3]),
    "wide": sys.maxsize > 2**32,
    "modules": [name for name in ("ssl", "venv", "ensurepip") if has(name)],
}))
"""

# Beside PATH. Version managers keep interpreters where no PATH leads.
_GLOBS = (
    "~/.pyenv/versions/*/bin",
    "~/.local/share/uv/python/*/bin",
    "~/.asdf/installs/python/*/bin",
    "~/.local/share/mise/installs/python/*/bin",
    "~/miniconda3/bin",
    "~/miniconda3/envs/*/bin",
    "~/anaconda3/bin",
    "~/anaconda3/envs/*/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/usr/local/python*/bin",
    "/opt/*/bin",
    "/opt/*/*/bin",
)


class Interpreter(NamedTuple):
    """A CPython that answered.

    Attributes:
        path: the program itself, not a shim and not a virtual environment's link to it.
        minor: e.g. "3.10".
        has_ensurepip: whether it can put pip into a virtual environment by itself.
    """

    path: str
    minor: str
    has_ensurepip: bool


class Rejection(NamedTuple):
    """A candidate that was tried, and why it will not do."""

    path: str
    reason: str


class Search(NamedTuple):
    """What a search came to. `looked_in` names the places, for people."""

    found: Optional[Interpreter]
    rejections: Tuple[Rejection, ...]
    looked_in: Tuple[str, ...]


def find_interpreter(cache: str, pythons: Sequence[str]) -> Search:
    """Looks for a CPython of one of these minor versions, the first of them preferred.

    Args:
        cache: the cache directory; it may hold an interpreter that uv brought.
        pythons: e.g. ("3.10", "3.9", "3.8").
    """
    places = [os.path.dirname(sys.executable), *os.environ.get("PATH", "").split(os.pathsep)]
    return search_in(places + library_folders(cache), pythons)


def library_folders(cache: str) -> List[str]:
    """Returns the folders that are looked into beside PATH, those that exist."""
    patterns = [*list(_GLOBS), os.path.join(uv_pythons(cache), "*", "bin")]
    if os.environ.get("PYENV_ROOT"):
        patterns.insert(0, os.path.join(os.environ["PYENV_ROOT"], "versions", "*", "bin"))
    folders: List[str] = []
    for pattern in patterns:
        folders.extend(sorted(glob.glob(os.path.expanduser(pattern)), reverse=True))
    return folders


def search_in(folders: Sequence[str], pythons: Sequence[str]) -> Search:
    """Runs every candidate in these folders until one is all that could be wished for."""
    best: Optional[Interpreter] = None
    rejections: List[Rejection] = []
    folders = list(dict.fromkeys(os.path.abspath(folder) for folder in folders if folder))
    for path in _candidates(folders, pythons):
        answer = probe(path, pythons)
        if isinstance(answer, Rejection):
            rejections.append(answer)
        elif best is None or _rank(answer, pythons) < _rank(best, pythons):
            best = answer
        if best is not None and _rank(best, pythons) == (False, 0):
            break
    return Search(best, tuple(rejections), tuple(folders))


def _rank(found: Interpreter, pythons: Sequence[str]) -> Tuple[bool, int]:
    return (not found.has_ensurepip, list(pythons).index(found.minor))


def _candidates(folders: Sequence[str], pythons: Sequence[str]) -> Iterator[str]:
    """Yields programs to try: the running one, then by name, the telling names first."""
    seen = set()
    if sys.executable:
        seen.add(sys.executable)
        yield sys.executable
    for name in ["python" + minor for minor in pythons] + ["python3", "python"]:
        for folder in folders:
            path = os.path.join(folder, name)
            if path not in seen and os.path.isfile(path) and os.access(path, os.X_OK):
                seen.add(path)
                yield path


def probe(path: str, pythons: Sequence[str]) -> "Interpreter | Rejection":
    """Runs a candidate and returns what it is, or why it cannot be used."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Rejection(path, "no answer in %.0f s" % _PROBE_TIMEOUT_S)
    except OSError as error:
        return Rejection(path, error.strerror or str(error))
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return Rejection(path, ": ".join(["exit code %d" % done.returncode, *said[:1]]))
    return _judge(path, done.stdout, pythons)


def _judge(path: str, answer: bytes, pythons: Sequence[str]) -> "Interpreter | Rejection":
    try:
        facts: Dict[str, object] = json.loads(answer.decode("utf-8").splitlines()[-1])
        version, modules = str(facts["version"]), str(facts["modules"])
        interpreter, name = str(facts["path"]), facts["name"]
    except (ValueError, LookupError, TypeError):
        return Rejection(path, "does not answer as a Python does")
    minor = version.rsplit(".", 1)[0]
    if name != "CPython" or minor not in pythons:
        return Rejection(path, "is %s %s" % (name, version))
    if not facts.get("wide"):
        return Rejection(path, "is a 32-bit build")
    if "'ssl'" not in modules:
        return Rejection(path, "was built without ssl")
    if "'venv'" not in modules:
        return Rejection(path, "has no venv module: install python%s-venv" % minor)
    return Interpreter(interpreter, minor, "'ensurepip'" in modules)


def uv_pythons(cache: str) -> str:
    """Returns the directory into which uv puts interpreters for us."""
    return os.path.join(cache, "python")


def uv_home(cache: str) -> str:
    """Returns the directory that holds the uv which we fetched."""
    return os.path.join(cache, "uv")


def uv_program(cache: str) -> Optional[str]:
    """Returns the uv on PATH, or the one in the cache, or None."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), os.path.join(uv_home(cache), "bin")]
    for folder in filter(None, folders):
        path = os.path.join(folder, "uv")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def uv_found(uv: str, cache: str, pythons: Sequence[str]) -> List[str]:
    """Returns the interpreters that uv knows of, as paths; none where uv does not run."""
    paths = []
    for minor in pythons:
        try:
            done = subprocess.run(
                [uv, "python", "find", "--no-python-downloads", "--system", minor],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=uv_environ(cache),
                timeout=_PROBE_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        line = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode == 0 and re.match(r"/[^\n]+$", line):
            paths.append(line)
    return paths


def uv_environ(cache: str) -> Dict[str, str]:
    """Returns the environment in which uv keeps everything inside our cache."""
    environ = dict(os.environ)
    environ["UV_PYTHON_INSTALL_DIR"] = uv_pythons(cache)
    environ["UV_CACHE_DIR"] = os.path.join(uv_home(cache), "cache")
    environ["UV_PYTHON_BIN_DIR"] = os.path.join(uv_home(cache), "shims")
    return environ
