"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from io import RawIOBase
from pathlib import Path

_BLOCK_BYTES = 64 * 1024


def replace_file(path: Path, data: bytes) -> None:
    """Puts a file in place of an older one in one step; a crash leaves either of the two.

    Raises:
        OSError: the directory cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def replace_json(path: Path, value: object) -> None:
    """Puts a JSON file in place of an older one in one step."""
    replace_file(path, (json.dumps(value, indent=2) + "\n").encode())


def write_whole(file: RawIOBase, data: bytes) -> None:
    """Writes all of the bytes; where a disk takes only a part, the next write says why.

    Raises:
        OSError: the disk is full, or a limit is reached.
    """
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def drop_torn_line(path: Path) -> None:
    """Takes away the end of a line that a crash left without its newline.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return
    with file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _BLOCK_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)


def sync(path: Path) -> None:
    """Makes sure that a file's bytes, or a directory's names, are there after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
