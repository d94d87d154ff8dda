"""The OneFlow runtime that workers run in: found in the cache, or built into it, once a machine.

The lock is `runtime_lock`; what lies in the cache and when it counts is `runtime_store`; the
steps of a build are `runtime_build`.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import contextlib
import errno
import os
import platform
import re
import shutil
from typing import Callable, Iterator, List, Optional, Sequence

from launcher.agent.children import RuntimeBuildError
from launcher.agent.interpreters import Search, find_interpreter
from launcher.agent.runtime_build import STAGE_WAIT, Builder, Progress, disk_full
from launcher.agent.runtime_lock import SPEC, RuntimeSpec, runtime_hash
from launcher.agent.runtime_store import (
    builder_lock,
    cache_directory,
    clear_leftovers,
    find_runtime,
    remove_runtime,
    runtimes_root,
)

__all__: List[str] = [
    "SPEC", "RuntimeBuildError", "RuntimeSpec", "build_runtime", "cache_directory",
    "check_platform", "find_runtime", "libc_version", "remove_runtime", "runtime_hash",
]  # fmt: skip


def build_runtime(
    cache: str,
    progress: Progress = lambda stage, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    spec: RuntimeSpec = SPEC,
    wheels: Optional[str] = None,
    free_bytes: Callable[[str], int] = lambda path: shutil.disk_usage(path).free,
    search: Callable[[str, Sequence[str]], Search] = find_interpreter,
) -> str:
    """Returns the python of a whole runtime, which is built unless the cache holds one.

    Of several builders on one cache, also on a shared disk, one builds; the others wait for it.

    Args:
        cache: the cache directory, see `cache_directory`.
        progress: told (stage, done bytes, total bytes) as the build goes on; total is 0 where it
            is not known. The stages are wait, interpreter, download, install and verify.
        should_stop: asked several times a second; true ends the build.
        spec: what to build.
        wheels: a directory with all wheels, for a machine without an index. It is only read.
        free_bytes: how much room there is at a path.
        search: finds an interpreter, given the cache and the minor versions wanted.

    Raises:
        RuntimeBuildError: with what is wrong and what to do about it.
    """
    check_platform(platform.system(), platform.machine(), libc_version())
    # Two statements: one with brackets around both is a tuple to Python 3.7.
    with _own_errors(cache):
        with builder_lock(cache, should_stop, lambda: progress(STAGE_WAIT, 0, 0)):
            found = find_runtime(cache, spec)
            if found is not None:
                return found
            clear_leftovers(runtimes_root(cache))
            builder = Builder(cache, progress, should_stop, spec, wheels)
            return builder.build(free_bytes, search)


def check_platform(system: str, machine: str, libc: str) -> None:
    """Checks that OneFlow's binaries can run here at all.

    Args:
        system: e.g. "Linux".
        machine: e.g. "x86_64".
        libc: e.g. "glibc 2.31", or "" where it is not glibc.

    Raises:
        RuntimeBuildError: they cannot.

    >>> check_platform("Linux", "x86_64", "glibc 2.31")
    """
    needs = "OneFlow 0.9.0 has binaries only for Linux on x86-64 with glibc 2.17 or newer"
    hint = "use another machine for workers; the launcher itself may stay on this one"
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        raise RuntimeBuildError("platform", "%s; this is %s on %s" % (needs, system, machine), hint)
    version = re.match(r"glibc (\d+)\.(\d+)", libc)
    if version is None:
        raise RuntimeBuildError("platform", "%s; this system's C library is not" % needs, hint)
    if (int(version.group(1)), int(version.group(2))) < (2, 17):
        raise RuntimeBuildError("platform", "%s; this is %s" % (needs, libc), hint)


def libc_version() -> str:
    """Returns e.g. "glibc 2.31"; "" where the C library does not say, as musl."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError, AttributeError):
        return ""


@contextlib.contextmanager
def _own_errors(cache: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(cache) from error
        raise RuntimeBuildError(
            "cache",
            "the cache %s cannot be used: %s" % (cache, error),
            "make it writable, or set FLOWLAUNCH_CACHE to a directory that is",
        ) from error
