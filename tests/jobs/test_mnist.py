"""Reading MNIST in its layouts, and telling what is no MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import drawn, mnist
from jobs.command import DataError

_IMAGES = np.arange(5 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(5, 28, 28)
_LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


def _npz(folder: Path, **changes: Any) -> str:
    arrays = {"x_train": _IMAGES, "y_train": _LABELS, "x_test": _IMAGES[:2], "y_test": _LABELS[:2]}
    arrays.update(changes)
    path = folder / "mnist.npz"
    given: dict[str, Any] = {name: each for name, each in arrays.items() if each is not None}
    np.savez(path, **given)
    return str(path)


def _idx(array: np.ndarray[Any, Any]) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def _write_idx(folder: Path, *, zipped: bool, dot: bool = False) -> None:
    arrays = {
        "train-images-idx3-ubyte": _IMAGES,
        "train-labels-idx1-ubyte": _LABELS,
        "t10k-images-idx3-ubyte": _IMAGES[:2],
        "t10k-labels-idx1-ubyte": _LABELS[:2],
    }
    for name, array in arrays.items():
        spelled = name.replace("-idx", ".idx") if dot else name
        if zipped:
            (folder / f"{spelled}.gz").write_bytes(gzip.compress(_idx(array)))
        else:
            (folder / spelled).write_bytes(_idx(array))


def _check(found: mnist.DigitSet) -> None:
    assert np.array_equal(found.train.images, _IMAGES)
    assert found.train.labels.tolist() == [3, 1, 4, 1, 5]
    assert (found.train.count, found.test.count) == (5, 2)
    assert "drawn" not in found.name


def test_reads_mnist_npz(tmp_path: Path) -> None:
    _check(mnist.load(_npz(tmp_path)))
    _check(mnist.load(str(tmp_path)))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dot", [False, True])
def test_reads_the_four_idx_files(tmp_path: Path, zipped: bool, dot: bool) -> None:
    _write_idx(tmp_path, zipped=zipped, dot=dot)
    _check(mnist.load(str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x_test": None}, "lacks x_test"),
        ({"x_train": _IMAGES.astype(np.float32)}, "training images are float32"),
        ({"x_test": _IMAGES[:2, :27]}, r"test images are uint8 \(2, 27, 28\)"),
        ({"y_train": _LABELS[:4]}, r"training labels are uint8 \(4,\)"),
        ({"y_train": _LABELS.astype(np.float64)}, "training labels are float64"),
        ({"y_test": np.array([9, 10])}, r"test labels reach 9\.\.10"),
        ({"y_test": np.array([-1, 1])}, r"test labels reach -1\.\.1"),
        ({"x_test": _IMAGES[:0], "y_test": _LABELS[:0]}, "test set is empty"),
        ({"y_test": np.array([{}, {}], object)}, "cannot be read"),
    ],
)
def test_checks_shapes_types_and_labels(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = _npz(tmp_path, **changes)
    with pytest.raises(DataError, match=says) as caught:
        mnist.load(path)
    assert path in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as mnist\.npz") as caught:
        mnist.load(str(path))
    assert "\n" not in str(caught.value)


def test_an_npz_that_is_cut_short_is_told(tmp_path: Path) -> None:
    path = Path(_npz(tmp_path))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="cannot be read"):
        mnist.load(str(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no idx file"),
        (b"\x00\x00\x0d\x01", "no idx file of unsigned bytes"),
        (_idx(_IMAGES)[:-1], "bytes, its header says"),
        (_idx(_IMAGES) + b"x", "bytes, its header says"),
        (b"\x00\x00\x08\x03\x00", "within its header"),
    ],
)
def test_a_wrong_idx_file_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    _write_idx(tmp_path, zipped=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=says):
        mnist.load(str(tmp_path))


def test_a_gzip_that_is_cut_short_is_named(tmp_path: Path) -> None:
    _write_idx(tmp_path, zipped=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="t10k-images"):
        mnist.load(str(tmp_path))


def test_what_is_not_there_is_told_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no such file or folder; `python -m jobs\.mnist fetch DIR`"
    ):
        mnist.load(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no train-images-idx3-ubyte"):
        mnist.load(str(tmp_path))


def test_drawn_digits_are_alike_for_one_seed_and_say_what_they_are() -> None:
    images, labels = drawn.digits(200, seed=1)
    again, _ = drawn.digits(200, seed=1)
    others, _ = drawn.digits(200, seed=2)
    assert np.array_equal(images, again)
    assert not np.array_equal(images, others)
    assert np.bincount(labels).tolist() == [20] * 10
    assert images.shape == (200, 28, 28)
    assert images.dtype == np.uint8
    # White on black, and no two alike.
    assert np.median(images) < 40 < images.max(axis=(1, 2)).min()
    assert len({image.tobytes() for image in images}) == 200
    assert mnist.load(None).name == "drawn digits"


def test_the_network_gets_numbers_about_zero() -> None:
    values = mnist.normalized(np.full((2, 28, 28), 255, np.uint8))
    assert values.shape == (2, 1, 28, 28)
    assert values.dtype == np.float32
    assert values[0, 0, 0, 0] == pytest.approx(127 / 255)
