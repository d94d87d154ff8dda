"""What a job wrote into its working directory: nobody else has it, so it must stay."""

import os
from typing import AbstractSet, Iterable, NamedTuple

from launcher.agent.gathering import Trace


class Leftovers(NamedTuple):
    """How much there is of it."""

    files: int
    bytes: int


def written_files(
    directory: str, shipped: Iterable[str], since: float, collected: AbstractSet[Trace]
) -> Leftovers:
    """Counts the files that the job made or changed; compiled Python is nobody's work.

    Args:
        directory: the job's folder.
        shipped: the paths in it that the launcher sent.
        since: when the folder was built, by this machine's clock.
        collected: the files that the launcher has, as they were then.
    """
    known = set(shipped)
    files = size = 0
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            status = os.lstat(path)
            inside = os.path.relpath(path, directory)
            is_old = inside in known and status.st_mtime <= since
            is_here = (inside, status.st_size, status.st_mtime_ns) in collected
            if not is_old and not is_here and not name.endswith(".pyc"):
                files += 1
                size += status.st_size
    return Leftovers(files, size)
