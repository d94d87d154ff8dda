"""Which worker takes which image at which step: pure arithmetic on the seed.

Every global batch is the same set of images however many workers there are; only its cut into
shares differs. A step's images follow from its number, so that a restart goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.command import DataError, UsageError

Indexes = npt.NDArray[np.int64]


def share(count: int, rank: int, world_size: int) -> slice:
    """Returns one rank's part of `count` things; the first ranks take what does not divide.

    OneFlow splits a global tensor alike.

    >>> [share(100, rank, 3) for rank in range(3)]
    [slice(0, 34, None), slice(34, 67, None), slice(67, 100, None)]
    """
    each, rest = divmod(count, world_size)
    start = rank * each + min(rank, rest)
    return slice(start, start + each + (rank < rest))


@dataclass(frozen=True)
class Order:
    """The order in which a data set of `count` images is trained on.

    Attributes:
        count: images in the data set.
        batch_size: images in a global batch, over all workers.
        seed: of the shuffle; each epoch has its own.
    """

    count: int
    batch_size: int
    rank: int
    world_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size < self.world_size:
            raise UsageError(
                f"a global batch of {self.batch_size} leaves some of {self.world_size} workers "
                f"without an image: take --batch-size {self.world_size} or more, or fewer workers"
            )
        if self.count < self.batch_size:
            raise DataError(
                f"{self.count} images do not fill one batch of {self.batch_size}: take a smaller "
                "--batch-size or more data"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; what is left over takes its turn after another shuffle."""
        return self.count // self.batch_size

    def epoch_of(self, step: int) -> int:
        """Returns the epoch, from 0, that the step-th step (from 0) belongs to."""
        return step // self.steps_per_epoch

    def training(self, start: int, stop: int) -> Iterator[Indexes]:
        """Yields this rank's images for the steps from `start` up to, not including, `stop`."""
        epoch, shuffled = -1, np.empty(0, np.int64)
        mine = share(self.batch_size, self.rank, self.world_size)
        for step in range(start, stop):
            if self.epoch_of(step) != epoch:
                epoch = self.epoch_of(step)
                shuffled = np.random.default_rng([self.seed, epoch]).permutation(self.count)
            first = step % self.steps_per_epoch * self.batch_size
            yield shuffled[first : first + self.batch_size][mine]


def evaluation(first: int, last: int, batch_size: int, rank: int, world: int) -> Iterator[Indexes]:
    """Yields this rank's part of the images first..last-1 in batches: each image on one rank, once.

    >>> [list(map(int, batch)) for batch in evaluation(0, 7, 2, rank=1, world=3)]
    [[1, 4]]
    """
    mine = np.arange(first + rank, last, world, dtype=np.int64)
    for start in range(0, len(mine), batch_size):
        yield mine[start : start + batch_size]
