"""Bytes that are text already, printed as the place they go to would have them."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from typing import TextIO

_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031


def write_bytes(out: TextIO, data: bytes) -> None:
    """Writes UTF-8 without taking it apart, where that is what the other side expects.

    Raises:
        BrokenPipeError: nobody reads there any more.
    """
    if out.encoding.lower().replace("-", "") == "utf8":
        out.flush()
        out.buffer.write(data)
    else:
        out.write(data.decode())


def widen(out: TextIO) -> None:
    """Makes a pipe hold a megabyte where the system lets it; 64 KiB cost many turns."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        fcntl.fcntl(out.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)


def let_go_of(out: TextIO) -> None:
    """Makes sure that nothing more is said there, not even by the interpreter at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
