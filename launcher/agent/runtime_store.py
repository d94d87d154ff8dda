"""The OneFlow runtime in the cache: where it is, whether it is whole, how it is removed.

    <cache>/runtime/<hash>/bin/python      one for each lock and minor version
    <cache>/runtime/<hash>/flowlaunch.json the stamp, written last; without it there is no runtime
    <cache>/runtime/.lock                  held by the one that builds or removes
    <cache>/runtime/.build-*, .old-*       of a build at work, or left over from a dead one
    <cache>/runtime/.wheels-<hash>         what a build has downloaded so far
    <cache>/runtime/build.log              what the last build that failed had to say

Shipped to nodes: Python 3.7 and its standard library only.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, Optional

from launcher.agent.children import PROBLEM_STOPPED, RuntimeBuildError
from launcher.agent.runtime_lock import SPEC, RuntimeSpec, runtime_hash

STAMP_NAME = "flowlaunch.json"
LOCK_NAME = ".lock"
BUILD_PREFIX = ".build-"
OLD_PREFIX = ".old-"
WHEELS_PREFIX = ".wheels-"
LOG_NAME = "build.log"

_LOCK_POLL_S = 0.1
# Packages that only an installation needs: a runtime without them is whole.
_NOT_STAMPED = {"pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel"}
# Trees that no import reaches: OneFlow's C++ headers, and tests.
_NOT_ENTERED = {"__pycache__", "include", "tests", "test"}


def cache_directory() -> str:
    """Returns the cache of this user on this machine, which need not exist yet."""
    given = os.environ.get("FLOWLAUNCH_CACHE")
    if given:
        return os.path.abspath(os.path.expanduser(given))
    shared = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return os.path.join(os.path.abspath(os.path.expanduser(shared)), "flowlaunch")


def runtimes_root(cache: str) -> str:
    """Returns the directory that holds the runtimes of a cache."""
    return os.path.join(cache, "runtime")


def runtime_directory(cache: str, spec: RuntimeSpec, minor: str) -> str:
    """Returns where the runtime of this lock and minor version stands, or would."""
    return os.path.join(runtimes_root(cache), runtime_hash(spec, minor))


def runtime_python(directory: str) -> str:
    """Returns the program that runs workers in this runtime."""
    return os.path.join(directory, "bin", "python")


def find_runtime(cache: str, spec: RuntimeSpec = SPEC) -> Optional[str]:
    """Returns the python of a whole runtime, or None.

    Every file that an import of OneFlow may reach must have the size that it had when the
    runtime was built. Nothing is run: this takes milliseconds.
    """
    for minor in spec.pythons:
        directory = runtime_directory(cache, spec, minor)
        if is_whole(directory):
            return runtime_python(directory)
    return None


def is_whole(directory: str) -> bool:
    """Whether a runtime's stamp is there and everything is as the stamp says."""
    try:
        with open(os.path.join(directory, STAMP_NAME), encoding="utf-8") as stamp_file:
            stamp = json.load(stamp_file)
        return _python_stands(directory, stamp) and _sizes_hold(directory, stamp["files"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _python_stands(directory: str, stamp: Dict[str, Any]) -> bool:
    """The link leads to the interpreter that it was made for, and that has its library still."""
    python = runtime_python(directory)
    return (
        os.path.realpath(python) == stamp["interpreter"]
        and os.access(python, os.X_OK)
        and os.path.isfile(stamp["library"])
    )


def _sizes_hold(directory: str, files: Dict[str, int]) -> bool:
    prefix = directory + os.sep
    return bool(files) and all(os.stat(prefix + name).st_size == files[name] for name in files)


def write_stamp(directory: str, library: str) -> None:
    """Declares a runtime whole, as it stands now.

    Args:
        directory: the runtime's.
        library: a file of the interpreter's own standard library, outside of the runtime.
    """
    stamp = {
        "interpreter": os.path.realpath(runtime_python(directory)),
        "library": library,
        "files": dict(_stamped_files(directory)),
    }
    path = os.path.join(directory, STAMP_NAME)
    with open(path + ".new", "w", encoding="utf-8") as stamp_file:
        json.dump(stamp, stamp_file)
        stamp_file.flush()
        os.fsync(stamp_file.fileno())
    os.replace(path + ".new", path)


def _stamped_files(directory: str) -> "Iterator[tuple[str, int]]":
    """Yields path and size of all that an import may reach: modules and shared objects."""
    yield "pyvenv.cfg", os.path.getsize(os.path.join(directory, "pyvenv.cfg"))
    for folder, names, files in os.walk(os.path.join(directory, "lib")):
        top = os.path.basename(folder) == "site-packages"
        names[:] = sorted(set(names) - _NOT_ENTERED - (_NOT_STAMPED if top else set()))
        for name in files:
            if name.endswith(".py") or ".so" in name:
                path = os.path.join(folder, name)
                yield os.path.relpath(path, directory), os.path.getsize(path)


@contextlib.contextmanager
def builder_lock(
    cache: str, should_stop: Callable[[], bool], on_wait: Callable[[], None]
) -> Iterator[None]:
    """Holds the cache's lock, for as long as this process lives at most.

    Args:
        cache: the cache directory; it is made where it is missing.
        should_stop: asked while another builder holds the lock.
        on_wait: called each time that the lock was found taken.

    Raises:
        RuntimeBuildError: the wait was stopped.
        OSError: the cache cannot be written.
    """
    root = runtimes_root(cache)
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, LOCK_NAME), "ab") as lock_file:
        while not _try_lock(lock_file.fileno()):
            on_wait()
            if should_stop():
                raise RuntimeBuildError(PROBLEM_STOPPED, "the build of the runtime was stopped")
            time.sleep(_LOCK_POLL_S)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def remove_runtime(cache: str, should_stop: Callable[[], bool] = lambda: False) -> bool:
    """Removes every runtime of a cache and what came with it. Returns whether there was one.

    A build that is at work is waited for. The runtimes are gone at once for everyone who looks,
    before their files are.

    Raises:
        RuntimeBuildError: the wait was stopped.
        OSError: something cannot be removed.
    """
    root = runtimes_root(cache)
    if not os.path.isdir(root):
        return False
    with builder_lock(cache, should_stop, lambda: None):
        names = [name for name in os.listdir(root) if name not in (LOCK_NAME, LOG_NAME)]
        removed = any(not name.startswith(".") for name in names)
        for name in names:
            set_aside(os.path.join(root, name))
        clear_leftovers(root)
        for name in ("uv", "python"):
            shutil.rmtree(os.path.join(cache, name), ignore_errors=True)
    return removed


def set_aside(directory: str) -> None:
    """Renames a directory, if there is one, so that nobody finds it any more."""
    if os.path.lexists(directory):
        parent = os.path.dirname(directory)
        os.rename(directory, os.path.join(tempfile.mkdtemp(prefix=OLD_PREFIX, dir=parent), "it"))


def clear_leftovers(root: str) -> None:
    """Removes what dead builders left. Only the holder of the lock may do this."""
    for name in os.listdir(root):
        if name.startswith((BUILD_PREFIX, OLD_PREFIX)):
            shutil.rmtree(os.path.join(root, name), ignore_errors=True)
