"""What a job wrote into its working directory: nobody else has it, so it must stay."""

import os
from typing import Iterable, NamedTuple


class Leftovers(NamedTuple):
    """How much there is of it."""

    files: int
    bytes: int


def written_files(directory: str, shipped: Iterable[str], since: float) -> Leftovers:
    """Counts the files that the job made or changed; compiled Python is nobody's work.

    Args:
        directory: the job's folder.
        shipped: the paths in it that the launcher sent.
        since: when the folder was built, by this machine's clock.
    """
    known = set(shipped)
    files = size = 0
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            status = os.lstat(path)
            is_old = os.path.relpath(path, directory) in known and status.st_mtime <= since
            if not is_old and not name.endswith(".pyc"):
                files += 1
                size += status.st_size
    return Leftovers(files, size)
