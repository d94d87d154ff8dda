"""The hash of a folder: one number that is equal on two machines where the files are."""

import hashlib
from typing import Iterable

from launcher.wire.order import TreeFile


def tree_hash(files: Iterable[TreeFile]) -> str:
    """Returns the sha256, in hex, over the paths, modes and contents of a folder.

    The order of the files does not count.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(
            b"%s\0%s\0%o\0" % (file.path.encode("utf-8"), file.sha256.encode(), file.mode)
        )
    return digest.hexdigest()
