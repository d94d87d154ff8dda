"""Giving a file's first bytes back to the disk while somebody goes on writing to its end.

A worker holds its log open and appends: the file cannot be renamed away or cut without losing what
it writes next. A hole keeps every offset and costs no disk.
"""

import ctypes
import ctypes.util
import os
from typing import Any, Optional

_KEEP_SIZE, _PUNCH_HOLE = 1, 2


def punch(path: str, end: int) -> None:
    """Makes the bytes before `end` a hole; they read as zeros from then on.

    Raises:
        OSError: the file system cannot do that, or the system has no such call.
    """
    call = _fallocate()
    if call is None:
        raise OSError("this system has no fallocate")
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if call(fd, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(end)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def first_data(fd: int) -> int:
    """Returns where a hole at the beginning of a file ends, 0 where there is none.

    A file that is nothing but a hole counts as whole: nobody gives back the block that grows.
    """
    try:
        return os.lseek(fd, 0, os.SEEK_DATA)
    except OSError:
        return 0  # it is empty, or the file system cannot tell


def _fallocate() -> Optional[Any]:
    libc = ctypes.CDLL(ctypes.util.find_library("c") or None, use_errno=True)
    # The 64-bit one by its own name, where there are two.
    return getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
