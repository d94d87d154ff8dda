"""The manifest's file: read whole or refused at once, whatever stands at its path."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from launcher.core.manifest import parse_manifest
from launcher.core.model import ClusterSpec
from launcher.core.problem import Problem
from launcher.errors import ManifestError

# 10,000 nodes with every key written out are about 3 MB.
MOST_BYTES = 4 * 1024 * 1024

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_manifest(path: Path) -> ClusterSpec:
    """Reads cluster.yaml.

    Raises:
        ManifestError: it is not there, no regular file, too big, not UTF-8, or wrong; every problem
            has a line.
    """
    data = _read(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError([_not_utf8(data, error.start).render(str(path))]) from None
    return parse_manifest(text, str(path))


def _read(path: Path) -> bytes:
    try:
        # Looked at before it is opened: opening some devices does something. O_NONBLOCK and the
        # second look are for what takes its place in between.
        _check_kind(path, path.stat())
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            _check_kind(path, os.fstat(descriptor))
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if len(data) > MOST_BYTES:
        raise _too_big(path)
    return data


def _check_kind(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise ManifestError([f"{path}: expected a file, this is {kind}"])
    if status.st_size > MOST_BYTES:
        raise _too_big(path)


def _too_big(path: Path) -> ManifestError:
    limit = f"{MOST_BYTES // 1024**2} MiB"
    return ManifestError(
        [f"{path}: bigger than {limit}, the most that a manifest may have"],
        hint='write many nodes as one with ranges: {name: "gpu[0001-9999]"}',
    )


def _missing(path: Path) -> ManifestError:
    return ManifestError(
        [f"{path}: there is no such file"],
        hint="write one with `flowlaunch init HOST…`, or leave --cluster out and run in a folder "
        "without cluster.yaml to use this machine alone",
    )


def _unreadable(path: Path, error: OSError | ValueError) -> ManifestError:
    number = error.errno if isinstance(error, OSError) else errno.EINVAL
    hint = "give yourself read permission" if number in (errno.EACCES, errno.EPERM) else ""
    return ManifestError([f"{path}: cannot be read: {os.strerror(number or errno.EIO)}"], hint=hint)


def _not_utf8(data: bytes, offset: int) -> Problem:
    start = data.rfind(b"\n", 0, offset) + 1
    column = len(data[start:offset].decode("utf-8")) + 1
    message = f"the byte 0x{data[offset]:02x} is not UTF-8; save the file as UTF-8"
    return Problem(data.count(b"\n", 0, offset) + 1, column, "", message)
