"""Where job functions are computed: a set of ranks and a kind of device.

One mesh serves the whole script. On one worker tensors are plain; on several they are global
tensors of OneFlow, whose shapes are those of the whole batch, which is how the old API showed them.
"""

from __future__ import annotations

import typing

import numpy as np
import oneflow as flow

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]


class Mesh:
    """The ranks that compute, of all that run the script.

    Attributes:
        ranks: those that compute, ascending.
        device: "cpu" or "cuda".
        rank: this worker.
        world_size: all workers.
    """

    def __init__(self, ranks: typing.Sequence[int], device: str, rank: int, size: int) -> None:
        self.ranks = list(ranks)
        self.device = device
        self.rank = rank
        self.world_size = size
        if size > 1:
            self._placement = flow.placement(device, self.ranks)
            self._everywhere = flow.placement(device, list(range(size)))

    def placement(self, device: str) -> typing.Any:
        """Returns the ranks' placement on a kind of device, or None on one worker."""
        return flow.placement(device, self.ranks) if self.world_size > 1 else None

    def sbp(self, rows: int) -> typing.Any:
        """Returns how a batch of that many rows is held: dealt out, or whole on each rank."""
        return flow.sbp.split(0) if self.deals(rows) else flow.sbp.broadcast

    def deals(self, rows: int) -> bool:
        """Says whether that many rows can be dealt out evenly to the ranks."""
        return len(self.ranks) > 1 and rows > 0 and rows % len(self.ranks) == 0

    def put_batch(self, array: Array) -> typing.Any:
        """Returns a tensor of a whole batch that every rank holds; rows are dealt to the ranks."""
        if self.world_size == 1 or array.ndim == 0 or not self.deals(len(array)):
            return self.put_whole(array)
        share = len(array) // len(self.ranks)
        # A rank that computes nothing still takes part in making the tensor.
        index = self.ranks.index(self.rank) if self.rank in self.ranks else 0
        local = flow.tensor(array[index * share : (index + 1) * share])
        return local.to_global(placement=self._placement, sbp=flow.sbp.split(0))

    def put_whole(self, array: Array) -> typing.Any:
        """Returns a tensor of what every rank holds alike; rank 0's is taken."""
        if self.world_size == 1:
            return flow.tensor(array, device=self.device)
        everywhere = flow.tensor(array).to_global(
            placement=self._everywhere, sbp=flow.sbp.broadcast
        )
        if len(self.ranks) == self.world_size:
            return everywhere
        return everywhere.to_global(placement=self._placement, sbp=flow.sbp.broadcast)

    def gather(self, tensor: typing.Any) -> typing.Any:
        """Returns the tensor whole on every rank. Every rank has to ask."""
        if self.world_size == 1:
            return tensor
        return tensor.to_global(placement=self._everywhere, sbp=flow.sbp.broadcast)

    def fetch(self, tensor: typing.Any) -> Array:
        """Returns a tensor's whole value on every rank. Every rank has to ask."""
        tensor = tensor.detach()
        return self.read(tensor if self._is_everywhere(tensor) else self.gather(tensor))

    def _is_everywhere(self, tensor: typing.Any) -> bool:
        """Says whether every rank holds the tensor whole, so that nobody else has to ask."""
        return self.world_size > 1 and (tensor.placement, tuple(tensor.sbp)) == (
            self._everywhere,
            (flow.sbp.broadcast,),
        )

    def read(self, gathered: typing.Any) -> Array:
        """Returns the value of what `gather` gave."""
        local = gathered.to_local() if self.world_size > 1 else gathered
        return typing.cast("Array", local.numpy())
