"""The tutorials' MNIST: batches of a local ``mnist.npz``."""

from __future__ import annotations

import os
import typing

import numpy as np

from launcher.legacy.unsupported import LegacyError

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]
    Batches = typing.Tuple[Array, Array]

FILE = "mnist.npz"


def load_data(
    train_batch_size: int = 100, test_batch_size: int = 100, data_format: str = "NCHW"
) -> typing.Tuple[Batches, Batches]:
    """Returns the training and the test set as whole batches; a rest is left out.

    Pixels are ``(x - 128) / 255``, the scale that the tutorials' prediction script uses too.

    Args:
        train_batch_size: images a batch of the training set.
        test_batch_size: images a batch of the test set.
        data_format: "NCHW" or "NHWC".

    Returns:
        ((images, labels), (images, labels)): images (batches, batch_size, 1, 28, 28) float32 in
        NCHW, labels (batches, batch_size) int32.

    Raises:
        LegacyError: there is no mnist.npz in the working directory.
    """
    if not os.path.isfile(FILE):
        raise LegacyError(
            "{} is not in the working directory {}; it is not downloaded: put the file there "
            "(arrays x_train, y_train, x_test, y_test)".format(FILE, os.getcwd())
        )
    with np.load(FILE) as arrays:
        return (
            _batches(arrays["x_train"], arrays["y_train"], train_batch_size, data_format),
            _batches(arrays["x_test"], arrays["y_test"], test_batch_size, data_format),
        )


def _batches(images: Array, labels: Array, batch_size: int, data_format: str) -> Batches:
    count = len(images) // batch_size
    shape = (1, 28, 28) if data_format.upper() == "NCHW" else (28, 28, 1)
    whole = images[: count * batch_size].astype(np.float32)
    scaled = ((whole - 128.0) / 255.0).reshape((count, batch_size, *shape))
    return scaled, labels[: count * batch_size].astype(np.int32).reshape(count, batch_size)
