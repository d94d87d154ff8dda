"""Downloads MNIST from the first mirror that has it whole; goes on where it was cut off."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from jobs.command import DataError

MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
MIRRORS = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    "https://s3.amazonaws.com/img-datasets/mnist.npz",
)
_TIMEOUT_S = 20.0
_BLOCK_BYTES = 1 << 16
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


def fetch_mnist(folder: Path, mirrors: Sequence[str] = (), sha256: str = MNIST_SHA256) -> Path:
    """Returns a verified ``mnist.npz`` in the folder, downloading what is not there yet.

    Args:
        folder: made where it is missing.
        mirrors: addresses to try before `MIRRORS`.
        sha256: of the whole file.

    Raises:
        DataError: no mirror gave it; says how to place the file by hand.
    """
    target, part = folder / "mnist.npz", folder / "mnist.npz.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return _verified(target, sha256)
        _download((*mirrors, *MIRRORS), part, target, sha256)
        part.replace(target)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from None
    return target


def _verified(target: Path, sha256: str) -> Path:
    if _sha256(target) != sha256:
        raise DataError(f"{target} is there, but is not the file meant: its sha256 is not {sha256}")
    return target


def _download(mirrors: Sequence[str], part: Path, target: Path, sha256: str) -> None:
    tried = []
    for url in mirrors:
        problem = _try(url, part, sha256)
        if not problem:
            return
        tried.append(f"  {url}: {problem}")
    raise DataError(
        "mnist.npz could not be downloaded:\n" + "\n".join(tried) + "\nWithout a network, download "
        f"one of these files on another machine and place it at {target.resolve()}; its sha256 "
        f"must be {sha256}"
    )


def _try(url: str, part: Path, sha256: str) -> str:
    """Downloads the rest of the file; returns what went wrong, or ""."""
    try:
        _download_rest(url, part)
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        return str(error)
    if _sha256(part) == sha256:
        return ""
    part.unlink()
    return "what it sent is not the file meant (other sha256)"


def _download_rest(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    if not url.startswith(("http://", "https://")):
        raise urllib.error.URLError("only http and https addresses are fetched")
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if have and error.code == _RANGE_NOT_SATISFIABLE:
            return  # all of it is here already; the hash decides
        raise
    with answer:
        goes_on = answer.status == _PARTIAL_CONTENT
        with part.open("ab" if goes_on else "wb") as file:
            _copy(answer, file, have if goes_on else 0)


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], have: int) -> None:
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("mnist.npz", total=total, completed=have)
        while block := answer.read(_BLOCK_BYTES):
            file.write(block)
            progress.advance(task, len(block))
    if total is not None and file.tell() < total:
        raise http.client.IncompleteRead(b"", total - file.tell())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
