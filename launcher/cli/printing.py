"""Bytes that are text already, printed as the place they go to would have them."""

from __future__ import annotations

import os
from typing import TextIO


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


def let_go_of(out: TextIO) -> None:
    """Makes sure that nothing more is said there, not even by the interpreter at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
