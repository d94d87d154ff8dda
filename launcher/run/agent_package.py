"""The agent as it is shipped: one zip of the rooms that a node needs."""

from __future__ import annotations

import functools
import hashlib
import io
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import launcher

TOP = Path(launcher.__file__).parent
SHIPPED_ROOMS = ("agent", "legacy", "wire", "worker")
# A zip's own times would give every build another hash.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PACKING = threading.Lock()


@dataclass(frozen=True)
class AgentPackage:
    """The zip's bytes, and their sha256 in hex, under which a node keeps it."""

    data: bytes
    digest: str


def agent_package() -> AgentPackage:
    """Returns the package; the same files always give the same bytes."""
    # The threads of all nodes ask at the same moment: one of them packs, the others wait for it.
    with _PACKING:
        return _package()


@functools.cache
def _package() -> AgentPackage:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, TOP / "__init__.py")
        for room in SHIPPED_ROOMS:
            for file in sorted((TOP / room).glob("*.py")):
                _add(archive, file)
    data = buffer.getvalue()
    return AgentPackage(data, hashlib.sha256(data).hexdigest())


def _add(archive: zipfile.ZipFile, file: Path) -> None:
    name = f"launcher/{file.relative_to(TOP).as_posix()}"
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED)


# The interpreter that the agent itself runs on. The system's own comes first: on a node with
# pyenv, the `python3` of the login's PATH is a shell script, and slow.
_FIND_PYTHON = (
    'if [ -x /usr/bin/python3 ]; then exec /usr/bin/python3 -ISc "$@"; '
    'else exec python3 -ISc "$@"; fi'
)


def boot_command(root: str, arguments: str, python: str | None = None) -> list[str]:
    """Returns the command that makes a process of a node the agent.

    Args:
        root: flowlaunch's directory there; ``~`` is that login's.
        arguments: what `launcher.agent.__main__.main` is given.
        python: the interpreter to use; None looks for one there.
    """
    package = agent_package()
    words = [_boot_code(), package.digest, str(len(package.data)), root, arguments]
    if python is not None:
        return [python, "-ISc", *words]
    return ["/bin/sh", "-c", _FIND_PYTHON, "flowlaunch", *words]


@functools.cache
def _boot_code() -> str:
    source = (TOP / "agent" / "boot.py").read_bytes()
    # No single quote, line break or exclamation mark: whatever the login shell is, the words
    # reach python as they are.
    return f'exec(__import__("zlib").decompress(bytes.fromhex("{zlib.compress(source, 9).hex()}")))'
