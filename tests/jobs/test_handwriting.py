"""Pictures of digits in all forms come out as MNIST has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from jobs.command import DataError
from jobs.handwriting import Pixels, read_digit


def _seven(side: int = 120, where: tuple[int, int] = (10, 40)) -> Image.Image:
    image = Image.new("L", (side, side))
    x, y = where
    ImageDraw.Draw(image).line([(x, y), (x + 30, y), (x + 10, y + 50)], fill=255, width=6)
    return image


def _apart(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def test_ground_size_and_place_do_not_matter(tmp_path: Path) -> None:
    forms = {
        "plain.png": _seven(),
        "inverted.png": ImageOps.invert(_seven()),
        "large.png": _seven(120).resize((600, 600)),
        "elsewhere.png": _seven(200, (140, 20)),
        "photo.jpg": ImageOps.invert(_seven()).convert("RGB"),
        "palette.gif": ImageOps.invert(_seven()).convert("P"),
        "dim.png": _seven().point(lambda value: value // 3),
    }
    read = {}
    for name, image in forms.items():
        image.save(tmp_path / name)
        read[name] = read_digit(tmp_path / name)
    for name, pixels in read.items():
        assert pixels.shape == (28, 28)
        assert pixels.dtype == np.uint8
        assert _apart(pixels, read["plain.png"]) < 8, name
    rows, columns = np.nonzero(read["plain.png"] > 64)
    assert max(np.ptp(rows), np.ptp(columns)) in (18, 19, 20)


def test_transparent_ground_is_white(tmp_path: Path) -> None:
    ink = Image.new("RGBA", (120, 120), (0, 0, 0, 0))
    ink.putalpha(_seven())
    ink.save(tmp_path / "ink.png")
    _seven().save(tmp_path / "plain.png")
    assert _apart(read_digit(tmp_path / "ink.png"), read_digit(tmp_path / "plain.png")) < 4


def test_mnists_own_size_is_left_as_it_is(tmp_path: Path) -> None:
    image = _seven(120).resize((28, 28))
    image.save(tmp_path / "white.png")
    ImageOps.invert(image).save(tmp_path / "black.png")
    assert np.array_equal(read_digit(tmp_path / "white.png"), np.asarray(image, np.uint8))
    assert np.array_equal(read_digit(tmp_path / "black.png"), np.asarray(image, np.uint8))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n cut"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "note.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"note\.png: no image"):
        read_digit(path)


def test_missing_and_blank_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_digit(tmp_path / "none.png")
    Image.new("L", (50, 60), 200).save(tmp_path / "blank.png")
    with pytest.raises(DataError, match="one colour only"):
        read_digit(tmp_path / "blank.png")
