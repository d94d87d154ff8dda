"""OFRecord data sets: making, looking into, and cutting anew.

python -m jobs.ofrecord make --images DIR --labels labels.csv --parts 8 OUT
python -m jobs.ofrecord make --images DIR_OF_CLASS_FOLDERS --parts 8 OUT
python -m jobs.ofrecord inspect OUT
python -m jobs.ofrecord repart OUT --parts 16
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from jobs import command, pictures, records
from jobs.command import DataError
from jobs.pictures import Picture

_AHEAD_PER_THREAD = 16
_FILES_BESIDE_PARTS = 64
_JPEG_FORMATS = ("JPEG", "MPO")
_QUALITY = 95

Item = TypeVar("Item")
Result = TypeVar("Result")


def make(images: Path, labels: Path | None, parts: int, out: Path, skip_bad: bool) -> int:
    """Writes a data set; `out` appears whole or not at all. Memory does not grow with the set.

    Args:
        images: the folder of the pictures, or of a folder a class where `labels` is None.
        labels: a CSV file with the columns ``file`` and ``label``.
        parts: how many files to spread the records over, one after the other.
        out: a folder that does not exist yet.
        skip_bad: names broken pictures and goes on, instead of ending there.

    Returns:
        How many records were written.

    Raises:
        DataError: a picture or a label is not usable, or nothing is left to write.
    """
    if labels is None:
        source, total = pictures.in_class_folders(images), pictures.count_in_class_folders(images)
    else:
        source, total = pictures.in_table(images, labels), pictures.count_in_table(labels)
    written = 0
    with _appearing(out) as folder, _open_parts(folder, parts) as append:
        for result in _shown(_in_order(_encoded, source), total, "pictures"):
            if isinstance(result, bytes):
                append(written % parts, result)
                written += 1
            elif skip_bad:
                print(f"skipped: {result}", file=sys.stderr)
            else:
                raise DataError(f"{result}; --skip-bad leaves such pictures out")
        if written < parts:
            raise DataError(f"{written} usable pictures do not fill {parts} parts")
        if labels is None:
            pictures.write_classes(images, folder)
    return written


def _encoded(picture: Picture) -> bytes | str:
    """Returns a picture's record, or what is wrong with it."""
    try:
        jpeg = _jpeg(picture.path.read_bytes())
    except FileNotFoundError:
        return f"{picture.path}: no such file"
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return f"{picture.path}: no whole image"
    return records.encode(jpeg, picture.label)


def _jpeg(data: bytes) -> bytes:
    """Returns a whole JPEG file as it is, any other image as a new one."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format in _JPEG_FORMATS:
            # An eighth of the size still reads every byte, at twice the speed.
            image.draft(None, (image.width // 8, image.height // 8))
            image.load()
            return data
        encoded = io.BytesIO()
        image.convert("RGB").save(encoded, "JPEG", quality=_QUALITY)
        return encoded.getvalue()


def _in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Maps with a thread a core (Pillow lets them run side by side), only so far ahead."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= threads * _AHEAD_PER_THREAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _shown(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    yield from track(items, what, total=total, console=Console(stderr=True))


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `out` at the end; on an error nothing is left."""
    if out.exists():
        raise DataError(f"{out}: is there already; remove it, or name another folder")
    folder = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(out)
        _sync(out.parent)
    except OSError as error:
        raise DataError(f"{out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _open_parts(folder: Path, parts: int) -> Iterator[Callable[[int, bytes], None]]:
    """Gives a function that appends a message to a part; the parts are on the disk at the end."""
    _allow_files(parts + _FILES_BESIDE_PARTS)
    with ExitStack() as stack:
        files = [
            stack.enter_context((folder / records.part_name(number)).open("wb"))
            for number in range(parts)
        ]

        def append(part: int, data: bytes) -> None:
            files[part].write(records.frame(data))

        yield append
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    _sync(folder)


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > soft:
        if hard != resource.RLIM_INFINITY and count > hard:
            raise DataError(f"this system lets a process open {hard} files: take fewer --parts")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def repart(out: Path, parts: int) -> int:
    """Spreads the records of a data set over another number of parts; returns how many they are.

    The old data set stands until the new one is whole.

    Raises:
        DataError: it cannot be read, or has fewer records than `parts`.
    """
    old = records.index(out)
    if old.count < parts:
        raise DataError(f"{out}: {old.count} records do not fill {parts} parts")
    fresh = out.with_name(f".{out.name}.new-{os.getpid()}")
    with _appearing(fresh) as folder:
        with _open_parts(folder, parts) as append:
            for number in _shown(range(old.count), old.count, "records"):
                part, offset, length = map(int, old.places[number])
                append(number % parts, records.read(old.parts[part], offset, length))
        for beside in set(out.iterdir()) - set(old.parts):
            shutil.copy2(beside, folder / beside.name)
    aside = out.with_name(f".{out.name}.old-{os.getpid()}")
    out.rename(aside)
    fresh.rename(out)
    _sync(out.parent)
    shutil.rmtree(aside)
    return old.count


def inspect(out: Path) -> Iterator[str]:
    """Yields lines that say what a data set holds; reads every record.

    Raises:
        DataError: a part or a record is broken.
    """
    parts = records.find_parts(out)
    labels: set[int] = set()
    total = total_bytes = 0
    for part in parts:
        count = 0
        for offset, length in records.scan(part):
            where = f"{part}: record at byte {offset}"
            jpeg, label = records.decode(records.read(part, offset, length), where)
            if total == count == 0:
                yield f"first image: {_looks(jpeg)}, label {label}"
            labels.add(label)
            count += 1
        total, total_bytes = total + count, total_bytes + part.stat().st_size
        yield f"{part.name}: {count} records, {part.stat().st_size} bytes"
    if labels:
        yield f"labels: {min(labels)}..{max(labels)}, {len(labels)} different"
    yield f"{out}: {len(parts)} parts, {total} records, {total_bytes} bytes"


def _looks(jpeg: bytes) -> str:
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return f"{image.format} {image.width}x{image.height} {image.mode}"
    except UnidentifiedImageError:
        return "no image that Pillow knows"


def main(argv: Sequence[str]) -> int:
    """The command line of ``python -m jobs.ofrecord``."""
    options = _parse(argv)
    out = Path(options.out)
    if options.command == "inspect":
        for line in inspect(out):
            print(line)
    elif options.command == "repart":
        print(f"{out}: {repart(out, options.parts)} records in {options.parts} parts")
    else:
        labels = Path(options.labels) if options.labels else None
        count = make(Path(options.images), labels, options.parts, out, options.skip_bad)
        print(f"{out}: {count} records in {options.parts} parts")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = command.Parser(
        prog="python -m jobs.ofrecord",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fill = commands.add_parser("make", help="writes a data set from pictures")
    fill.add_argument("--images", required=True, metavar="DIR")
    fill.add_argument("--labels", metavar="CSV", help="columns file,label; without it each folder "
                      "in DIR is a class")  # fmt: skip
    fill.add_argument("--skip-bad", action="store_true", help="leave broken pictures out")
    cut = commands.add_parser("repart", help="spreads a data set over other parts")
    for each in (fill, cut):
        each.add_argument("--parts", type=command.positive, required=True, metavar="N")
    for each in (fill, cut, commands.add_parser("inspect", help="says what a data set holds")):
        each.add_argument("out", metavar="OUT")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(main)
