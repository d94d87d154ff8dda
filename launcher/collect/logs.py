"""The workers' bytes on this machine: exactly those that they wrote, proven at the end."""

from __future__ import annotations

import hashlib
from pathlib import Path

from launcher.core.paths import RunPaths
from launcher.errors import StoreError
from launcher.store.atomic import write_whole
from launcher.store.run_record import store_error

REPORT = "report"
_STREAMS = ("stdout", "stderr", REPORT)


class StreamFile:
    """One stream of one worker."""

    def __init__(self, path: Path | None) -> None:
        """Begins at its first byte; without a path it is only proven, not kept."""
        self._path = path
        self._file = None
        self._hash = hashlib.sha256()
        self.size = 0
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb", buffering=0)

    def append(self, offset: int, data: bytes) -> bytes:
        """Takes the next bytes; returns those that are new.

        Raises:
            ValueError: bytes in between are missing.
        """
        if offset > self.size:
            raise ValueError(f"{offset - self.size} bytes are missing at {self.size}")
        fresh = data[self.size - offset :]
        if self._file is not None:
            write_whole(self._file, fresh)
        self._hash.update(fresh)
        self.size += len(fresh)
        return fresh

    def problem_with(self, size: int, sha256: str) -> str:
        """Returns what is wrong with the stream if it should be this one, "" if nothing is."""
        if self.size != size:
            return f"{self.size} of {size} bytes are here"
        if self._hash.hexdigest() != sha256:
            return "the bytes here are not those that the worker wrote"
        return ""

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()


class LogCollector:
    """All streams of a run."""

    def __init__(self, paths: RunPaths, nodes: dict[int, str]) -> None:
        """Takes the run's paths and the node of each rank."""
        self._paths = paths
        self._nodes = nodes
        self._streams: dict[tuple[int, str], StreamFile] = {}

    def append(self, rank: int, stream: str, offset: int, data: bytes) -> bytes:
        """Keeps the next bytes of a stream; returns those that are new.

        Raises:
            StoreError: this machine's disk does not take them, bytes before them are missing, or
                no worker has such a stream.
        """
        try:
            return self._stream(rank, stream).append(offset, data)
        except OSError as error:
            raise store_error(error, Path(self._paths.top)) from None
        except ValueError as error:
            raise StoreError(str(error), where=self._name(rank, stream)) from None

    def _stream(self, rank: int, stream: str) -> StreamFile:
        key = (rank, stream)
        if rank not in self._nodes or stream not in _STREAMS:
            # Names come from the nodes and become file names here.
            raise StoreError(f"a node sent output of rank {rank}'s {stream!r}, which there is not")
        if key not in self._streams:
            kept = stream != REPORT
            path = Path(self._paths.log(self._nodes[rank], rank, stream)) if kept else None
            self._streams[key] = StreamFile(path)
        return self._streams[key]

    def _name(self, rank: int, stream: str) -> str:
        return f"{self._nodes[rank]}: rank {rank}'s {stream}"

    def problem_with(self, rank: int, stream: str, size: int, sha256: str) -> str:
        """Returns what is wrong with a stream that has ended, "" if it is here whole."""
        problem = self._stream(rank, stream).problem_with(size, sha256)
        return f"{self._name(rank, stream)}: {problem}" if problem else ""

    def tail(self, rank: int, stream: str, max_bytes: int) -> bytes:
        """Returns the end of a stream as it is here."""
        path = Path(self._paths.log(self._nodes[rank], rank, stream))
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - max_bytes))
                return file.read()
        except FileNotFoundError:
            return b""

    def close(self) -> None:
        """Lets go of every file."""
        for stream in self._streams.values():
            stream.close()
