"""Photographs out of OFRecord parts, as AlexNet takes them.

The parts are read by number, not by OneFlow's OFRecordReader: that one shards whole parts, so
that batches would depend on the number of workers and epochs be uneven. Decoding, resizing and
normalization are OneFlow's own operators.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs import records
from jobs.command import DataError
from jobs.order import Indexes

if TYPE_CHECKING:
    from jobs.scoring import Batch

    Raw = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]

SIDE_PX = 227
MEAN_RGB = (123.68, 116.78, 103.94)
_BATCHES_AHEAD = 2


class Photographs:
    """A folder of OFRecord parts of images."""

    def __init__(self, folder: Path, classes: int) -> None:
        """Finds all records; reads one of each part.

        Raises:
            DataError: the folder holds no parts, or not of images with labels below `classes`.
        """
        self._index = records.index(folder)
        self._classes = classes
        for first in np.unique(self._index.places[:, 0], return_index=True)[1]:
            self._image(int(first))

    @property
    def count(self) -> int:
        """How many images there are."""
        return self._index.count

    def batches(self, order: Iterator[Indexes]) -> Iterator[Batch]:
        """Yields images (n, 3, 227, 227) less their mean, and labels (n,)."""
        import oneflow as flow

        decode = _decoder()
        for files, labels in _read_ahead(self._raw(indexes) for indexes in order):
            yield decode(flow.tensor(files)), flow.tensor(labels)

    def _image(self, number: int) -> tuple[bytes, int]:
        jpeg, label = self._index.image(number)
        if not 0 <= label < self._classes:
            part = self._index.parts[int(self._index.places[number, 0])]
            raise DataError(f"{part}: label {label}, expected 0..{self._classes - 1}")
        return jpeg, label

    def _raw(self, indexes: Indexes) -> Raw:
        """Returns JPEG files, each with zeros after its end to one length, and labels."""
        images, labels = [], []
        for number in indexes.tolist():
            jpeg, label = self._image(number)
            images.append(jpeg)
            labels.append(label)
        files = np.zeros((len(images), max(map(len, images))), np.uint8)
        for row, image in enumerate(images):
            files[row, : len(image)] = np.frombuffer(image, np.uint8)
        return files, np.array(labels, np.int64)


def _decoder() -> Any:
    """Returns a function from JPEG files (n, bytes) uint8 to images (n, 3, 227, 227) float32."""
    import oneflow as flow

    decode = flow.nn.image.decode(dtype=flow.uint8, color_space="RGB")
    resize = flow.nn.image.Resize(target_size=[SIDE_PX, SIDE_PX])
    normalize = flow.nn.CropMirrorNormalize(
        color_space="RGB", output_layout="NCHW", mean=list(MEAN_RGB), std=[1.0, 1.0, 1.0],
        output_dtype=flow.float,
    )  # fmt: skip

    def images(files: Any) -> Any:
        return normalize(resize(decode(flow.tensor_to_tensor_buffer(files, instance_dims=1)))[0])

    return images


def _read_ahead(batches: Iterator[Raw]) -> Iterator[Raw]:
    """Reads in a thread, some batches ahead, so that a slow disk is not waited for."""
    ready: queue.Queue[Any] = queue.Queue(_BATCHES_AHEAD)
    enough = threading.Event()

    def put(item: Any) -> bool:
        while not enough.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except (DataError, OSError) as error:
            put(error)

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        enough.set()
        thread.join()
