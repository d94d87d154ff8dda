"""Brings a picture of one digit into the form that MNIST's pictures have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from jobs.command import DataError

Pixels = npt.NDArray[np.uint8]

_SIDE_PX = 28
_BOX_PX = 20


def read_digit(path: Path) -> Pixels:
    """Returns (28, 28), white on black, as MNIST has it.

    The colour of the edge is taken for the ground. A picture of 28x28 is left as it is; in any
    other the digit is cut out, scaled into 20x20 and centred by its mass, as MNIST's makers did.

    Raises:
        DataError: the file is no image that Pillow opens, or shows one colour only.
    """
    try:
        with Image.open(path) as image:
            flat = _on_white(image) if _has_alpha(image) else image
            grey = np.asarray(flat.convert("L"), np.float32)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        raise DataError(f"{path}: no image that can be read") from None
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(edge) > 127:
        grey = 255 - grey
    if grey.shape != (_SIDE_PX, _SIDE_PX):
        grey = _centred(path, grey)
    return grey.astype(np.uint8)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _on_white(image: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA"))


def _centred(path: Path, grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    low, high = float(grey.min()), float(grey.max())
    if high - low < 8:
        raise DataError(f"{path}: shows one colour only, no digit")
    grey = (grey - low) * (255 / (high - low))
    rows, columns = np.nonzero(grey > 64)
    ink = grey[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = _BOX_PX / max(ink.shape)
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    small = Image.fromarray(ink.astype(np.uint8)).resize(size, Image.Resampling.BOX)
    return _placed(np.asarray(small, np.float32))


def _placed(ink: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Puts ink (at most 20x20) on black (28, 28), its centre of mass in the middle."""
    canvas = np.zeros((_SIDE_PX, _SIDE_PX), np.float32)
    mass = ink.sum() or 1.0
    corner = []
    for axis, length in enumerate(ink.shape):
        centre = float((ink.sum(axis=1 - axis) * np.arange(length)).sum() / mass)
        corner.append(min(max(round(_SIDE_PX / 2 - 0.5 - centre), 0), _SIDE_PX - length))
    top, left = corner
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return canvas
