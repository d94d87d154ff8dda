"""OFRecord: what a part file holds, byte by byte.

A folder holds ``part-00000``, ``part-00001``, …; a part is a row of frames: a little-endian int64
length, then a protobuf message of that many bytes, a map from names to lists of values. An image
is ``encoded`` (its JPEG file) and ``class/label`` (one int32).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from jobs.command import DataError

IMAGE_KEY = "encoded"
LABEL_KEY = "class/label"

_LENGTH = struct.Struct("<q")
_PART = re.compile(r"^part-(\d+)$")


def _message_class() -> Any:
    """Builds the message at run time: oneflow's own module cannot be imported without oneflow."""
    field = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "bytes_list": field.TYPE_BYTES,
        "float_list": field.TYPE_FLOAT,
        "double_list": field.TYPE_DOUBLE,
        "int32_list": field.TYPE_INT32,
        "int64_list": field.TYPE_INT64,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="flowlaunch_ofrecord.proto", package="flowlaunch", syntax="proto2"
    )
    feature = descriptor_pb2.DescriptorProto(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (kind, scalar) in enumerate(scalars.items(), start=1):
        values = file.message_type.add(name=kind)
        value = values.field.add(name="value", number=1, type=scalar, label=field.LABEL_REPEATED)
        value.options.packed = scalar != field.TYPE_BYTES
        feature.field.add(
            name=kind, number=number, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL,
            type_name=f".flowlaunch.{kind}", oneof_index=0,
        )  # fmt: skip
    file.message_type.append(feature)
    record = file.message_type.add(name="OFRecord")
    entry = record.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=field.TYPE_MESSAGE, label=field.LABEL_OPTIONAL,
        type_name=".flowlaunch.Feature",
    )  # fmt: skip
    record.field.add(
        name="feature", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED,
        type_name=".flowlaunch.OFRecord.FeatureEntry",
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("flowlaunch.OFRecord")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    # protobuf 3, which oneflow needs
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # type: ignore[attr-defined]


Record = _message_class()


def encode(jpeg: bytes, label: int) -> bytes:
    """Returns the message of one image."""
    record = Record()
    record.feature[IMAGE_KEY].bytes_list.value.append(jpeg)
    record.feature[LABEL_KEY].int32_list.value.append(label)
    return bytes(record.SerializeToString())


def parse(data: bytes, where: str) -> Any:
    """Returns the message in a frame's bytes.

    Raises:
        DataError: there is none.
    """
    try:
        return Record.FromString(data)
    except message.DecodeError:
        raise DataError(f"{where}: no OFRecord") from None


def decode(data: bytes, where: str) -> tuple[bytes, int]:
    """Returns an image's JPEG bytes and label.

    Raises:
        DataError: the message is not of an image.
    """
    features = parse(data, where).feature
    images = list(features[IMAGE_KEY].bytes_list.value) if IMAGE_KEY in features else []
    labels = list(features[LABEL_KEY].int32_list.value) if LABEL_KEY in features else []
    if len(images) != 1 or len(labels) != 1:
        found = ", ".join(sorted(map(str, features))) or "nothing"
        raise DataError(
            f"{where}: expected one {IMAGE_KEY} (bytes) and one {LABEL_KEY} (int32), found {found}"
        )
    return bytes(images[0]), int(labels[0])


def frame(data: bytes) -> bytes:
    r"""Returns a message as it stands in a part.

    >>> frame(b"ab")
    b'\x02\x00\x00\x00\x00\x00\x00\x00ab'
    """
    return _LENGTH.pack(len(data)) + data


def part_name(number: int) -> str:
    """Returns a part's file name.

    >>> part_name(7)
    'part-00007'
    """
    return f"part-{number:05d}"


def find_parts(folder: Path) -> list[Path]:
    """Returns a folder's parts in order.

    Raises:
        DataError: it has none, or one in their row is missing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {_how_to_make(folder)}")
    numbered = {
        int(found.group(1)): path
        for path in folder.iterdir()
        if (found := _PART.match(path.name)) and path.is_file()
    }
    if not numbered:
        raise DataError(f"{folder}: holds no part-00000; {_how_to_make(folder)}")
    missing = [number for number in range(max(numbered) + 1) if number not in numbered]
    if missing:
        raise DataError(f"{folder}: {part_name(missing[0])} is missing among its parts")
    return [numbered[number] for number in sorted(numbered)]


def _how_to_make(folder: Path) -> str:
    return (
        "OFRecord parts are made with "
        f"`python -m jobs.ofrecord make --images DIR --labels labels.csv --parts 8 {folder}`"
    )


def scan(part: Path) -> Iterator[tuple[int, int]]:
    """Yields the offset and the bytes of each message in a part, reading only the lengths.

    Raises:
        DataError: the part is cut short, or is none.
    """
    with part.open("rb", buffering=0) as file:
        size, offset = os.fstat(file.fileno()).st_size, 0
        while offset < size:
            head = os.pread(file.fileno(), _LENGTH.size, offset)
            start = offset + _LENGTH.size
            length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
            if length < 0 or start + length > size:
                raise DataError(f"{part}: no whole record at byte {offset} of {size}")
            yield start, length
            offset = start + length


def read(part: Path, offset: int, length: int) -> bytes:
    """Returns the bytes of one message."""
    fd = os.open(part, os.O_RDONLY)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Index:
    """Where each record of a folder lies; records are numbered through all parts.

    Attributes:
        places: (count, 3) int64: part, offset, bytes.
    """

    parts: tuple[Path, ...]
    places: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many records there are."""
        return len(self.places)

    def image(self, number: int) -> tuple[bytes, int]:
        """Returns a record's JPEG bytes and label.

        Raises:
            DataError: the record is not of an image.
        """
        part, offset, length = map(int, self.places[number])
        path = self.parts[part]
        return decode(read(path, offset, length), f"{path}: record at byte {offset}")


def index(folder: Path) -> Index:
    """Finds every record of a folder. Any number of parts will do, of any lengths.

    Raises:
        DataError: the folder holds no parts or no records, or a part is broken.
    """
    parts = find_parts(folder)
    places = [
        np.fromiter(
            ((number, offset, length) for offset, length in scan(part)), np.dtype((np.int64, 3))
        )
        for number, part in enumerate(parts)
    ]
    found = Index(tuple(parts), np.concatenate(places))
    if not found.count:
        raise DataError(f"{folder}: its {len(parts)} parts hold no record")
    return found
