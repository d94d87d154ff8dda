"""MNIST: reading it in its usual layouts, and fetching it.

python -m jobs.mnist fetch DIR
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs import drawn
from jobs.command import DataError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_IDX_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
_IDX_UBYTE = 0x08


@dataclass(frozen=True)
class Digits:
    """Images (n, 28, 28) uint8, white on black, and labels (n,) 0..9."""

    images: Pixels
    labels: Labels

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def first(self, count: int) -> Digits:
        """Returns the first `count` of them."""
        return Digits(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class DigitSet:
    """Digits to train on and to test with, and what to call them."""

    name: str
    train: Digits
    test: Digits


def load(path: str | None) -> DigitSet:
    """Returns the digits at a path: ``mnist.npz``, a folder with the idx files, or drawn ones.

    Raises:
        DataError: the file is missing, or is not what it should be.
    """
    if path is None:
        return _draw()
    place = Path(path)
    if not place.exists():
        raise DataError(
            f"--data {path}: no such file or folder; `python -m jobs.mnist fetch DIR` downloads "
            "MNIST, and without --data the job trains on drawn digits"
        )
    arrays = _read_idx_folder(place) if place.is_dir() else _read_npz(place)
    train = _checked(f"{path}: training", arrays[0], arrays[1])
    return DigitSet(f"MNIST from {path}", train, _checked(f"{path}: test", arrays[2], arrays[3]))


def _draw() -> DigitSet:
    train, test = drawn.digits(4000, seed=1), drawn.digits(1000, seed=2)
    return DigitSet("drawn digits", Digits(*train), Digits(*test))


def _read_npz(path: Path) -> list[npt.NDArray[np.generic]]:
    try:
        # Opened here: numpy leaves a file open that turns out to be no zip.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = [name for name in _ARRAYS if name not in arrays]
            if missing:
                raise DataError(f"{path}: not mnist.npz, it lacks {', '.join(missing)}")
            return [arrays[name] for name in _ARRAYS]
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as mnist.npz: {reason}") from None


def _read_idx_folder(folder: Path) -> list[npt.NDArray[np.generic]]:
    if (folder / "mnist.npz").is_file():
        return _read_npz(folder / "mnist.npz")
    return [read_idx(_find_idx(folder, name)) for name in _IDX_FILES]


def _find_idx(folder: Path, name: str) -> Path:
    # Some archives spell the dot before idx.
    for spelled in (name, name.replace("-idx", ".idx")):
        for path in (folder / spelled, folder / f"{spelled}.gz"):
            if path.is_file():
                return path
    wanted = ", ".join(_IDX_FILES)
    raise DataError(f"{folder}: no {name} or {name}.gz; it should hold {wanted}, or mnist.npz")


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Returns the array in an idx file of unsigned bytes, gzipped or not.

    Raises:
        DataError: it is no such file, or is cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if len(data) < 4 or data[:3] != bytes([0, 0, _IDX_UBYTE]):
        raise DataError(f"{path}: no idx file of unsigned bytes: it begins with {data[:4].hex()}")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise DataError(f"{path}: cut short within its header")
    shape = tuple(int(size) for size in np.frombuffer(data[4:header], ">u4"))
    wanted = header + int(np.prod(shape, dtype=np.int64))
    if len(data) != wanted:
        raise DataError(f"{path}: {len(data)} bytes, its header says {wanted}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _checked(what: str, images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic]) -> Digits:
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise DataError(
            f"{what} images are {images.dtype} {images.shape}, expected uint8 (n, 28, 28)"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise DataError(
            f"{what} labels are {labels.dtype} {labels.shape}, expected integers ({len(images)},)"
        )
    if not len(labels):
        raise DataError(f"{what} set is empty")
    numbers = labels.astype(np.int64)
    if numbers.min() < 0 or numbers.max() > 9:
        raise DataError(f"{what} labels reach {numbers.min()}..{numbers.max()}, expected 0..9")
    return Digits(images.astype(np.uint8, copy=False), numbers)


def normalized(images: Pixels) -> npt.NDArray[np.float32]:
    """Returns images (n, 28, 28) as the network takes them: (n, 1, 28, 28), about -0.5..0.5."""
    return ((images.astype(np.float32) - 128.0) / 255.0)[:, None]


def main(argv: Sequence[str]) -> int:
    """The command line of ``python -m jobs.mnist``."""
    from jobs.command import Parser
    from jobs.fetch import fetch_mnist

    parser = Parser(prog="python -m jobs.mnist", description="MNIST for jobs/lenet.py.")
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("fetch", help="download mnist.npz into a folder")
    get.add_argument("folder", metavar="DIR")
    get.add_argument("--mirror", action="append", metavar="URL", help="try this address first")
    options = parser.parse_args(argv)
    path = fetch_mnist(Path(options.folder), options.mirror or ())
    print(f"{path}: verified; train with --data {path}")
    return 0


if __name__ == "__main__":
    from jobs.command import run

    run(main)
