"""The runtime's wheels on this machine, for nodes that cannot reach an index: downloaded once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher.agent import runtime_store
from launcher.agent.runtime_lock import SPEC, Wheel, requirement, runtime_hash, wheels_for
from launcher.errors import StoreError

# Which of a distribution's files run on the nodes, whatever this machine is.
_PLATFORMS = (
    "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_12_x86_64",
    "manylinux2010_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64",
)  # fmt: skip
_MEASURE_S = 0.5
_TAIL_LINES = 5

Progress = Callable[[int, int], None]


class WheelStore:
    """Wheels in this machine's cache. Any thread may ask; only one downloads."""

    def __init__(self, progress: Progress) -> None:
        """Opens the store.

        Args:
            progress: is told how many bytes are here, of how many.
        """
        self._top = Path(runtime_store.cache_directory()) / "wheels"
        self._progress = progress
        self._lock = threading.Lock()

    def fetch(self, minor: str) -> list[Path]:
        """Returns the files that a runtime on this minor version is made of, and a pip.

        Raises:
            StoreError: they cannot be downloaded; what has come so far is kept.
        """
        wanted = (*wheels_for(SPEC, minor), SPEC.pip)
        folder = self._top / runtime_hash(SPEC, minor)
        whole = folder / ".whole"
        with self._lock:
            if not whole.exists():
                folder.mkdir(parents=True, exist_ok=True)
                self._download(folder, minor, wanted)
                whole.touch()
        return sorted(folder.glob("*.whl"))

    def _download(self, folder: Path, minor: str, wanted: tuple[Wheel, ...]) -> None:
        total = sum(wheel.size for wheel in wanted)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            listed = Path(scratch, "requirements.txt")
            listed.write_text("".join(requirement(wheel) + "\n" for wheel in wanted))
            said = ""
            for pip in _pips(Path(scratch)):
                log = Path(scratch, "pip.log")
                if self._run([*pip, *_arguments(folder, minor, listed)], log, folder, total):
                    return
                said = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        raise StoreError(
            f"the runtime's packages could not be downloaded to this machine\n{said}",
            where=str(folder),
            hint="check the network, the room on the disk, and pip's configuration (pip config "
            "list); what has come so far is kept",
        )

    def _run(self, argv: list[str], log: Path, folder: Path, total: int) -> bool:
        with log.open("wb") as sink:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
            )
            try:
                while True:
                    try:
                        return process.wait(_MEASURE_S) == 0
                    except subprocess.TimeoutExpired:
                        self._progress(min(total, _bytes_below(folder)), total)
            finally:
                process.kill()
                process.wait()


def _arguments(folder: Path, minor: str, listed: Path) -> list[str]:
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    return [
        "download", "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
        "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-cache-dir",
        "--python-version", minor, "--implementation", "cp", *platforms,
        "-d", str(folder), "-r", str(listed),
    ]  # fmt: skip


def _pips(scratch: Path) -> Iterator[list[str]]:
    """Yields ways to run pip: this interpreter's own, or one made for the purpose."""
    yield [sys.executable, "-m", "pip"]
    place = scratch / "pip"
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(place)], capture_output=True, check=False
    )
    if made.returncode == 0:
        yield [str(place / "bin" / "python"), "-m", "pip"]


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # pip moves files as it goes
            continue
    return total
