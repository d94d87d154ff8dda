"""Whether a path holds the same on every node: its sizes and names, and some or all of its bytes.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import errno
import hashlib
import os
import stat
from typing import Any, Dict, Iterator, List, Tuple

_BLOCK_BYTES = 64 * 1024
# Of each file are read: its beginning, its end, and so many blocks in between.
_BLOCKS_BETWEEN = 14
# Of a directory with more files than these, only so many are opened, evenly chosen.
_FILES_READ = 1000
_PIECE_BYTES = 1024 * 1024


def data_facts(path: str, full_hash: bool) -> Dict[str, Any]:
    """Returns ``{"path", "kind", "files", "bytes", "sha256"}``, or "error" for the last four.

    The hash goes over the names and sizes of all files below the path, and over their bytes: all
    of them, or sampled blocks of each (of 1,000 files, where there are more).

    Args:
        path: a file or directory; ``~`` is this user's home.
        full_hash: whether every byte is read.
    """
    found: Dict[str, Any] = {"path": path}
    place = os.path.expanduser(path)
    try:
        files = _files(place)
        found["kind"] = "directory" if os.path.isdir(place) else "file"
        found["files"] = len(files)
        found["bytes"] = sum(size for _, size in files)
        found["sha256"] = _digest(place, files, full_hash)
    except OSError as error:
        found["error"] = error.strerror or str(error)
        found["at"] = error.filename or place
    return found


def _files(place: str) -> List[Tuple[str, int]]:
    """Returns path below `place` and size of each file, in order; "" is the place itself.

    Sockets, FIFOs and devices in a directory hold no data, and are left out.
    """
    if not os.path.isdir(place):
        status = os.stat(place)
        if not stat.S_ISREG(status.st_mode):
            # To read a FIFO or a terminal would wait for ever.
            raise OSError(errno.EINVAL, "it is neither a file nor a directory", place)
        return [("", status.st_size)]
    found, entered = [], set()
    for folder, folders, names in os.walk(place, onerror=_raise, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()  # a link that leads back up
            continue
        entered.add((status.st_dev, status.st_ino))
        for name in names:
            path = os.path.join(folder, name)
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode):
                found.append((os.path.relpath(path, place), status.st_size))
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _digest(place: str, files: List[Tuple[str, int]], full_hash: bool) -> str:
    digest = hashlib.sha256()
    step = 1 if full_hash else max(1, len(files) // _FILES_READ)
    for number, (name, size) in enumerate(files):
        digest.update(b"%s\0%d\0" % (os.fsencode(name), size))
        if number % step == 0:
            path = os.path.join(place, name) if name else place
            for piece in _pieces(path, size, full_hash):
                digest.update(piece)
    return digest.hexdigest()


def _pieces(path: str, size: int, full_hash: bool) -> Iterator[bytes]:
    with open(path, "rb") as file:
        if full_hash or size <= (_BLOCKS_BETWEEN + 2) * _BLOCK_BYTES:
            while True:
                data = file.read(_PIECE_BYTES)
                if not data:
                    return
                yield data
        last = size - _BLOCK_BYTES
        for number in range(_BLOCKS_BETWEEN + 2):
            file.seek(last * number // (_BLOCKS_BETWEEN + 1))
            yield file.read(_BLOCK_BYTES)
