"""What workers held back of their reports when they ended, added to the rest.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import glob
import os
import sys

from launcher.wire.report import LAST_MARK, line_of, unpack_last

# More than a report with hundreds of values.
_MOST_BYTES = 1 << 20


def add_all(logs: str) -> None:
    """Appends the last report of each process that is gone to its report file.

    Every process of the workers must have ended.

    Args:
        logs: the directory of the report files.
    """
    for path in sorted(glob.glob(os.path.join(glob.escape(logs), "*%s*" % LAST_MARK))):
        try:
            _add(path)
        except OSError as error:
            # A full disk: the run ends without this line, but it ends.
            sys.stderr.write("%s: a last report could not be kept\n" % error)


def _add(path: str) -> None:
    with open(path, "rb") as file:
        last = unpack_last(file.read(_MOST_BYTES))
    if last is not None:
        _append(path.rpartition(LAST_MARK)[0], line_of(last).encode("ascii"))
    os.unlink(path)


def _append(path: str, line: bytes) -> None:
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # What ended in the middle of a line must not take this one with it.
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
