"""The job's folder on a node: built anew for each run from files that are kept by their hash."""

import hashlib
import os
import shutil
from typing import Callable, Dict, List

from launcher.wire.codec import WireError
from launcher.wire.order import TreeFile
from launcher.wire.tree import tree_hash


class FileDiffersError(Exception):
    """A file arrived with other bytes than those that it was announced with."""


class FileStore:
    """Files by the hash of their content, shared by every run of this user on this node."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._arriving: Dict[str, "hashlib._Hash"] = {}

    def path(self, sha256: str) -> str:
        """Returns where the file of that hash is, or would be."""
        if len(sha256) != 64 or not all(c in "0123456789abcdef" for c in sha256):
            raise WireError("no sha256: %r" % sha256)
        return os.path.join(self._directory, sha256[:2], sha256)

    def missing(self, files: List[TreeFile]) -> List[str]:
        """Returns the hashes that are not here. A file of another size counts as missing."""
        wanted = {file.sha256: file.size for file in files}
        return [sha256 for sha256, size in wanted.items() if not self._has(sha256, size)]

    def _has(self, sha256: str, size: int) -> bool:
        try:
            return os.stat(self.path(sha256)).st_size == size
        except OSError:
            return False

    def put(self, sha256: str, offset: int, size: int, data: bytes) -> bool:
        """Takes a piece of a file; returns whether the file is whole now.

        Raises:
            FileDiffersError: what arrived is not the file of that hash.
            OSError: the disk is full, or does not let us write.
        """
        final = self.path(sha256)
        partial = "%s.%d" % (final, os.getpid())
        os.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
        with open(partial, "wb" if offset == 0 else "r+b") as file:
            file.seek(offset)
            file.write(data)
        if offset == 0:
            self._arriving[sha256] = hashlib.sha256()
        digest = self._arriving.setdefault(sha256, hashlib.sha256())
        digest.update(data)
        if offset + len(data) < size:
            return False
        del self._arriving[sha256]
        if digest.hexdigest() != sha256:
            os.unlink(partial)
            raise FileDiffersError(sha256)
        os.rename(partial, final)
        return True


def build_tree(store: FileStore, files: List[TreeFile], directory: str) -> str:
    """Writes the job's folder and returns the hash of what then really stands there.

    The files are copies: a job may change its own, and no later run must see that.

    Raises:
        WireError: a path leads out of the directory.
        OSError: a file cannot be written.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return tree_hash([_write(store, file, directory) for file in files])


def _write(store: FileStore, file: TreeFile, directory: str) -> TreeFile:
    if file.path.startswith("/") or ".." in file.path.split("/"):
        raise WireError("path leads out of the folder: %r" % file.path)
    target = os.path.join(directory, file.path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(store.path(file.sha256), target)
    os.chmod(target, file.mode)
    data_hash = sha256_of(target)
    if data_hash != file.sha256:
        # Kept files are known by name and size; a power cut can leave one with other bytes. The
        # next run is to ask for it anew.
        os.unlink(store.path(file.sha256))
    status = os.stat(target)
    return TreeFile(file.path, data_hash, status.st_size, status.st_mode & 0o777)


def sha256_of(path: str, is_given_up: Callable[[], bool] = lambda: False) -> str:
    """Returns the hash of a file's bytes, in hex; "" where it was given up meanwhile.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1024 * 1024), b""):
            if is_given_up():
                return ""
            digest.update(block)
    return digest.hexdigest()
