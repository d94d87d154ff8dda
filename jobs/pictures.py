"""Pictures and their labels, one after the other: from a table, or from a folder a class."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobs.command import DataError

_LABEL_MAX = 2**31 - 1
_COLUMNS = ("file", "label")


class Picture(NamedTuple):
    """A picture's file and its class."""

    path: Path
    label: int


def in_table(images: Path, table: Path) -> Iterator[Picture]:
    """Yields what a CSV file names, in its order.

    Args:
        images: the folder that its ``file`` column is relative to.
        table: has at least the columns ``file`` and ``label``.

    Raises:
        DataError: a line is wrong; says which.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder")
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise DataError(f"{table}:1: has no column {missing[0]!r}; needs file,label")
            for row in rows:
                label = _label(row["label"], f"{table}:{rows.line_num}")
                yield Picture(images / (row["file"] or ""), label)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read: {error}") from None


def _label(text: str | None, where: str) -> int:
    try:
        label = int(text or "")
    except ValueError:
        label = -1
    if not 0 <= label <= _LABEL_MAX:
        raise DataError(f"{where}: label {text!r}, expected a whole number from 0 on")
    return label


def count_in_table(table: Path) -> int:
    """Returns how many lines a table has below its head, for a progress bar."""
    if not table.is_file():
        raise DataError(f"{table}: no such file")
    with table.open("rb") as file:
        return max(sum(1 for _ in file) - 1, 0)


def in_class_folders(images: Path) -> Iterator[Picture]:
    """Yields every file in each folder of a folder; the folders count by name from 0."""
    for label, folder in enumerate(_class_folders(images)):
        for path in sorted(folder.iterdir()):
            yield Picture(path, label)


def count_in_class_folders(images: Path) -> int:
    """Returns how many files there are in the folders of a folder."""
    return sum(1 for folder in _class_folders(images) for _ in folder.iterdir())


def write_classes(images: Path, out: Path) -> None:
    """Writes which folder became which label, as ``classes.csv``."""
    with (out / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("label", "class"))
        table.writerows((label, path.name) for label, path in enumerate(_class_folders(images)))


def _class_folders(images: Path) -> list[Path]:
    if not images.is_dir():
        raise DataError(f"{images}: no such folder")
    folders = sorted(path for path in images.iterdir() if path.is_dir())
    if not folders:
        raise DataError(f"{images}: holds no folders; a flat folder needs --labels labels.csv")
    return folders
