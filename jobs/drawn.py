"""Pictures that need no download: drawn digits and shapes. Equal seeds draw equal ones."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

SHAPES = ("circle", "square", "triangle", "cross", "ring", "bars", "star", "diamond")
_GLYPH_PX = 56
_DIGIT_PX = 28


def digits(count: int, seed: int) -> tuple[Pixels, Labels]:
    """Draws digits as MNIST has them: white on black, turned, sheared, shifted, noisy.

    Returns:
        Images (count, 28, 28) and their labels (count,), in random order, ten classes alike.
    """
    draw = np.random.default_rng([seed, count])
    glyphs = [[_glyph(digit, stroke) for stroke in range(3)] for digit in range(10)]
    labels = draw.permutation(np.arange(count) % 10).astype(np.int64)
    images = np.empty((count, _DIGIT_PX, _DIGIT_PX), np.uint8)
    for place, label in enumerate(labels):
        glyph = glyphs[label][draw.integers(3)]
        size = (_DIGIT_PX, _DIGIT_PX)
        bent = glyph.transform(
            size, Image.Transform.AFFINE, _affine(draw), Image.Resampling.BILINEAR
        )
        images[place] = np.asarray(bent)
    noise = draw.normal(0, 16, images.shape).astype(np.float32)
    return np.clip(images + noise, 0, 255).astype(np.uint8), labels


def _glyph(digit: int, stroke: int) -> Image.Image:
    image = Image.new("L", (_GLYPH_PX, _GLYPH_PX))
    middle = (_GLYPH_PX / 2, _GLYPH_PX / 2)
    font = ImageFont.load_default(46)
    ImageDraw.Draw(image).text(
        middle, str(digit), fill=255, font=font, anchor="mm", stroke_width=stroke
    )
    return image


def _affine(draw: np.random.Generator) -> tuple[float, float, float, float, float, float]:
    """Returns where each pixel of a digit lies in its glyph: turned, sheared, scaled, shifted."""
    angle, shear = draw.uniform(-0.22, 0.22), draw.uniform(-0.2, 0.2)
    wide, high = draw.uniform(1.9, 2.5, 2)
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = cos * wide, (shear * cos - sin) * high
    d, e = sin * wide, (shear * sin + cos) * high
    x, y = draw.uniform(-2, 2, 2) + _DIGIT_PX / 2
    middle = _GLYPH_PX / 2
    return a, b, middle - a * x - b * y, d, e, middle - d * x - e * y


def shapes(count: int, seed: int) -> Iterator[tuple[bytes, int]]:
    """Draws coloured shapes on coloured grounds.

    Yields:
        JPEG bytes (256x256 pixels) and the label, an index into `SHAPES`.
    """
    draw = np.random.default_rng([seed, count])
    for number in range(count):
        label = number % len(SHAPES)
        image = Image.new("RGB", (256, 256), _colour(draw, 20, 110))
        centre = draw.uniform(100, 156, 2)
        _draw_shape(ImageDraw.Draw(image), label, centre, draw.uniform(50, 95), draw)
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=90)
        yield jpeg.getvalue(), label


def _draw_shape(
    pen: ImageDraw.ImageDraw, label: int, centre: npt.NDArray[np.float64], radius: float,
    draw: np.random.Generator,
) -> None:  # fmt: skip
    colour, turn = _colour(draw, 140, 255), draw.uniform(-0.3, 0.3)
    x, y = map(float, centre)
    box = (x - radius, y - radius, x + radius, y + radius)

    def corners(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Turns points given by angle (in turns) and distance (in radii) about the centre."""
        angles = [(2 * math.pi * angle + turn, radius * far) for angle, far in places]
        return [(x + far * math.sin(angle), y - far * math.cos(angle)) for angle, far in angles]

    name = SHAPES[label]
    if name == "circle":
        pen.ellipse(box, fill=colour)
    elif name == "ring":
        pen.ellipse(box, outline=colour, width=18)
    elif name == "cross":
        for start in (0.0, 0.25):
            pen.line(corners([(start, 1), (start + 0.5, 1)]), fill=colour, width=26)
    elif name == "bars":
        for place in (-0.7, 0.0, 0.7):
            top, low = y + (place - 0.2) * radius, y + (place + 0.2) * radius
            pen.rectangle((box[0], top, box[2], low), fill=colour)
    else:
        pen.polygon(corners(_POLYGONS[name]), fill=colour)


_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(0.125 + place / 4, 1.0) for place in range(4)],
    "triangle": [(place / 3, 1.0) for place in range(3)],
    "star": [(place / 10, 1.0 if place % 2 == 0 else 0.4) for place in range(10)],
    "diamond": [(0.0, 1.0), (0.25, 0.5), (0.5, 1.0), (0.75, 0.5)],
}


def _colour(draw: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in draw.integers(low, high, 3))
    return red, green, blue
