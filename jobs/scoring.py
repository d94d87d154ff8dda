"""Evaluation over all ranks: each image on one rank, once, and the counts summed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import oneflow as flow
from oneflow import nn

from jobs.engines import total
from jobs.order import Indexes, evaluation
from launcher.worker import Context

if TYPE_CHECKING:
    Batch = tuple[flow.Tensor, flow.Tensor]
Table = npt.NDArray[np.int64]


class Source(Protocol):
    """A data set that gives out images by their number."""

    @property
    def count(self) -> int:
        """How many images there are."""

    def batches(self, order: Iterator[Indexes]) -> Iterator[Batch]:
        """Yields images (n, channels, height, width) float32 and labels (n,) int64, on the CPU."""


@dataclass(frozen=True)
class Score:
    """What an evaluation found, over all ranks.

    Attributes:
        loss: the mean over the images.
        top1: images whose label alone has the highest logit.
        top5: images whose label is among the five highest.
        table: (classes, classes) images by label and prediction.
    """

    count: int
    loss: float
    top1: int
    top5: int
    table: Table

    @property
    def accuracy(self) -> float:
        """The part of the images that is recognized, 0..1."""
        return self.top1 / self.count


def evaluate(
    model: nn.Module, source: Source, w: Context, device: str, *,
    first: int = 0, last: int | None = None, batch_size: int, classes: int = 0,
) -> Score:  # fmt: skip
    """Evaluates on the images first..last-1 of a source. Every rank calls it.

    Args:
        model: with local parameters; it is left in training mode.
        source: the whole data set; this rank takes its share.
        w: says which share.
        device: where the model is.
        first: the first image that counts.
        last: the one after the last, by default all.
        batch_size: images at once on this rank.
        classes: the side of the table to count; 0 counts none.
    """
    last = source.count if last is None else last
    sums = np.zeros(4 + classes * classes)
    model.eval()
    with flow.no_grad():
        order = evaluation(first, last, batch_size, w.rank, w.world_size)
        for images, labels in source.batches(order):
            logits = model(images.to(device)).numpy()
            sums += _count(logits.astype(np.float64), labels.numpy(), classes)
    model.train()
    sums = total(flow.tensor(sums)).numpy()
    count, top1, top5 = (int(sums[place]) for place in (0, 2, 3))
    table = sums[4:].reshape(classes, classes).astype(np.int64)
    return Score(count, float(sums[1]) / max(count, 1), top1, top5, table)


def _count(
    logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.float64]:
    """Returns images, loss, top-1, top-5 and the flat table, each summed over a batch.

    A label that shares its logit with others comes after them, and one beside a NaN last: a dead
    network recognizes nothing.
    """
    rows = np.arange(len(labels))
    own = logits[rows, labels]
    place = (~(logits < own[:, None])).sum(axis=1) - 1
    highest = logits.max(axis=1)
    loss = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest - own
    table = np.zeros((classes, classes))
    if classes:
        np.add.at(table, (labels, logits.argmax(axis=1)), 1)
    sums = [len(labels), loss.sum(), (place == 0).sum(), (place < 5).sum()]
    return np.concatenate([sums, table.ravel()])
