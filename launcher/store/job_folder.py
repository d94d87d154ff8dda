"""The job's folder here: which one it is, which of its files travel, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher.core.model import JobSpec
from launcher.errors import StoreError, UsageError
from launcher.wire.order import TreeFile
from launcher.wire.tree import tree_hash

# Outside of git there is no word on what belongs to a program; these never do.
IGNORED_NAMES = frozenset(
    {
        ".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", "node_modules", "__pycache__",
        ".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints", ".idea", ".vscode",
        "runs", "checkpoints",
    }
)  # fmt: skip
IGNORED_SUFFIXES = (".pyc", ".pyo", ".swp", "~", ".egg-info")
# More than this is hardly a program; data has better ways to its nodes.
MAX_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class JobFolder:
    """What travels to every node.

    Attributes:
        top: the folder here.
        files: its files, by path.
        tree: the hash over all of them.
    """

    top: Path
    files: tuple[TreeFile, ...]
    tree: str

    def path_of(self, sha256: str) -> Path:
        """Returns a file here that has this content."""
        return self.top / next(file.path for file in self.files if file.sha256 == sha256)

    def holds(self, path: Path) -> bool:
        """Says whether a file here, or something in a directory here, travels."""
        try:
            inside = path.resolve().relative_to(self.top).as_posix()
        except ValueError:
            return False
        return any(
            file.path == inside or file.path.startswith(f"{inside}/") or inside == "."
            for file in self.files
        )


def locate_script(script: str) -> tuple[Path, str]:
    """Returns the folder that travels for a script, and the script's path in it.

    It is the folder that the script lies in; for a module of a package, the folder that the
    outermost package lies in, so that its imports hold.

    Raises:
        UsageError: there is no such script.
    """
    path = Path(script)
    if not path.is_file():
        kind = "is a directory" if path.is_dir() else "no such file"
        raise UsageError(
            f"{kind}: {script}",
            hint="name the job's .py file, or a module with -m MODULE",
        )
    path = path.resolve()
    top = path.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    return top, path.relative_to(top).as_posix()


def locate_module(module: str) -> tuple[Path, str]:
    """Returns the folder that travels for a module: the working directory.

    Raises:
        UsageError: the module is not in it.
    """
    top = Path.cwd()
    place = top.joinpath(*module.split("."))
    if place.with_suffix(".py").is_file() or (place / "__main__.py").is_file():
        return top, module
    raise UsageError(
        f"no module {module} in this directory",
        hint="modules are looked for as `python -m` does it, below the working directory",
    )


def job_spec(target: str, is_module: bool, args: tuple[str, ...]) -> tuple[JobSpec, Path]:
    """Returns the job that a command line names, and the folder that travels for it."""
    top, inside = (locate_module if is_module else locate_script)(target)
    cwd = Path.cwd().resolve()
    workdir = cwd.relative_to(top).as_posix() if cwd.is_relative_to(top) else "."
    name = target.rpartition(".")[2] if is_module else Path(inside).stem
    return JobSpec(name, inside, is_module, args, workdir), top


def read_folder(top: Path, script: str = "") -> JobFolder:
    """Hashes every file that travels.

    Args:
        top: the folder, without links in its path.
        script: the path in it of a file that travels even where git ignores it.

    Raises:
        UsageError: a link leads out of the folder, or the folder is too large for a program.
        StoreError: a file cannot be read.
    """
    files: list[TreeFile] = []
    total = 0
    own = {top / script} if script else set()
    for path in sorted(own | set(_through_links(top, list(_candidates(top))))):
        try:
            file = _read_file(top, path)
        except OSError as error:
            raise StoreError(error.strerror or str(error), where=str(path)) from None
        if file is None:
            continue
        total += file.size
        if total > MAX_BYTES:
            raise UsageError(
                f"the job's folder {top} holds more than {MAX_BYTES >> 20} MB to copy to each node",
                hint="keep data elsewhere and name its path, or list it in .gitignore",
            )
        files.append(file)
    return JobFolder(top, tuple(files), tree_hash(files))


def _candidates(top: Path) -> Iterator[Path]:
    listed = _git_files(top)
    return iter(listed) if listed is not None else _walk(top)


def _through_links(top: Path, listed: list[Path]) -> Iterator[Path]:
    """Yields files; for a link to a directory of the folder, the files behind it, through it.

    A link that is met behind another is not followed: links may lead in circles.
    """
    for path in listed:
        target = Path(os.path.realpath(path))
        if path.is_symlink() and path.is_dir() and target.is_relative_to(top):
            behind = (file for file in listed if file.is_relative_to(target))
            yield from (path / file.relative_to(target) for file in behind if not file.is_dir())
        else:
            yield path


def _git_files(top: Path) -> list[Path] | None:
    """Returns the tracked files and the untracked ones that are not ignored; None outside git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=top, capture_output=True, check=False)
    except OSError:
        return None
    if done.returncode:
        return None
    return [top / os.fsdecode(name) for name in set(done.stdout.split(b"\0")) if name]


def _walk(top: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if not _is_ignored(name)]
        here = Path(directory)
        yield from (here / name for name in files if not _is_ignored(name))
        yield from (here / name for name in names if (here / name).is_symlink())


def _is_ignored(name: str) -> bool:
    return name in IGNORED_NAMES or name.endswith(IGNORED_SUFFIXES)


def _read_file(top: Path, path: Path) -> TreeFile | None:
    """Returns a file with its hash; None for what does not travel: sockets, pipes, gone ones.

    A link inside of the folder travels as the file that it leads to.
    """
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(top):
        raise UsageError(
            f"{path} is a link that leads out of the job's folder {top}",
            hint="copy the file there, or list the link in .gitignore",
        )
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    if not stat.S_ISREG(status.st_mode):
        return None
    name = path.relative_to(top).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path!r}: the file's name is no UTF-8") from None
    digest, size = _hash_file(path)
    return TreeFile(name, digest, size, status.st_mode & 0o777)


def _hash_file(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
