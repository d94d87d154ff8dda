"""One training step over all workers, by OneFlow's own means of data parallelism.

`EagerEngine` is DistributedDataParallel, `GraphEngine` global tensors in an nn.Graph. Both take
this worker's share of a global batch and follow the mean loss over the whole batch, also where
the shares are not equal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import oneflow as flow
from oneflow import nn

from jobs.command import JobError, UsageError

if TYPE_CHECKING:
    State = dict[str, Any]

# Parameters whose gradients are summed together. With one, the first sums (the dense layers') run
# while the gradients of the convolutions are still computed; OneFlow's ten would be all of ours.
_BUCKET_SIZE = 1


class Engine(Protocol):
    """Owns a model and its optimizer."""

    def step(self, images: flow.Tensor, labels: flow.Tensor, scale: float) -> flow.Tensor:
        """Trains on this rank's share of a batch; returns what `mean_loss` takes.

        Args:
            images: (n, channels, height, width) float32.
            labels: (n,) int64.
            scale: of the gradients, 0..1. A graph's learning rate is fixed when it is compiled;
                this does the same for both engines.
        """

    def mean_loss(self, loss: flow.Tensor) -> float:
        """Returns the mean loss over the global batch. Every rank calls it."""

    def local_model(self) -> nn.Module:
        """Returns the model with local parameters, for evaluation on this rank's own images."""

    def parameters(self) -> Iterator[flow.Tensor]:
        """Yields this rank's parameters, as local tensors."""

    def state(self) -> State:
        """Returns model and optimizer for a checkpoint."""


class EagerEngine:
    """DistributedDataParallel in eager mode."""

    def __init__(
        self, model: nn.Module, *, lr: float, momentum: float, batch_size: int, optimizer: Any
    ) -> None:
        self._world_size = flow.env.get_world_size()
        self._batch_size = batch_size
        self._model = model
        if self._world_size > 1:
            # Buffers are not broadcast at each call: ranks may evaluate unequal numbers of batches.
            self._model = nn.parallel.DistributedDataParallel(
                model, broadcast_buffers=False, bucket_size=_BUCKET_SIZE
            )
        self._optimizer = flow.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        if optimizer is not None:
            self._optimizer.load_state_dict(optimizer)

    def step(self, images: flow.Tensor, labels: flow.Tensor, scale: float) -> flow.Tensor:
        """Trains on this rank's share of a batch."""
        logits = self._model(images)
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum") / self._batch_size
        # DDP averages the gradients over the ranks; what is wanted is their sum.
        (loss * (self._world_size * scale)).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()

    def mean_loss(self, loss: flow.Tensor) -> float:
        """Returns the sum of all ranks' parts of the mean."""
        return float(total(loss.reshape(1)).item())

    def local_model(self) -> nn.Module:
        """Returns the model itself."""
        return self._model

    def parameters(self) -> Iterator[flow.Tensor]:
        """Yields the model's parameters."""
        yield from self._model.parameters()

    def state(self) -> State:
        """Returns model and optimizer."""
        return {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}


class GraphEngine:
    """Global tensors in an nn.Graph: parameters everywhere, the batch split over the ranks."""

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        momentum: float,
        half: bool,
        build_local: Any,
        optimizer: Any,
    ) -> None:
        device = "cuda" if next(model.parameters()).is_cuda else "cpu"
        ranks = list(range(flow.env.get_world_size()))
        self._placement = flow.placement(device, ranks)
        self._model = model.to_global(placement=self._placement, sbp=flow.sbp.broadcast)
        self._graph = _TrainGraph(self._model, lr=lr, momentum=momentum, half=half)
        self._build_local = build_local
        if optimizer is not None:
            self._graph.load_state_dict(_everywhere(optimizer, self._placement), strict=False)

    def step(self, images: flow.Tensor, labels: flow.Tensor, scale: float) -> flow.Tensor:
        """Trains on this rank's share of a batch."""
        split = flow.sbp.split(0)
        return self._graph(
            images.to_global(placement=self._placement, sbp=split),
            labels.to_global(placement=self._placement, sbp=split),
            flow.tensor([scale]).to_global(placement=self._placement, sbp=flow.sbp.broadcast),
        )

    def mean_loss(self, loss: flow.Tensor) -> float:
        """Returns the graph's loss, which is the mean already."""
        return float(loss.to_global(sbp=flow.sbp.broadcast).to_local().item())

    def local_model(self) -> nn.Module:
        """Returns an eager model of the same weights: short graphs can crash on CPU."""
        local = self._build_local()
        local.load_state_dict(
            {name: value.to_local() for name, value in self._model.state_dict().items()}
        )
        return local

    def parameters(self) -> Iterator[flow.Tensor]:
        """Yields this rank's copies of the global parameters."""
        yield from (parameter.to_local() for parameter in self._model.parameters())

    def state(self) -> State:
        """Returns model and optimizer. The graph names the optimizer's tensors."""
        state = self._graph.state_dict()
        extra = {key: value for key, value in state.items() if not isinstance(value, dict)}
        return {"model": self._model.state_dict(), "graph": extra}


class _TrainGraph(nn.Graph):  # type: ignore[misc]
    def __init__(self, model: nn.Module, *, lr: float, momentum: float, half: bool) -> None:
        super().__init__()
        self.model = model
        self.add_optimizer(flow.optim.SGD(model.parameters(), lr=lr, momentum=momentum))
        if half:
            self.config.enable_amp(True)
            self.set_grad_scaler(flow.amp.GradScaler())

    def build(self, images: flow.Tensor, labels: flow.Tensor, scale: flow.Tensor) -> flow.Tensor:
        loss = nn.functional.cross_entropy(self.model(images), labels)
        (loss * scale).sum().backward()
        return loss


def _everywhere(state: State, placement: Any) -> State:
    return {
        name: value.to_global(placement=placement, sbp=flow.sbp.broadcast)
        for name, value in state.items()
    }


def find_device(local_rank: int) -> str:
    """Returns "cuda:<n>" where this worker has a GPU, else "cpu".

    Whoever sets CUDA_VISIBLE_DEVICES means a GPU.

    Raises:
        JobError: a GPU was given to this worker, but OneFlow finds none.
    """
    if flow.cuda.is_available():
        return f"cuda:{local_rank % flow.cuda.device_count()}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible not in ("", "-1"):
        raise JobError(
            f"this worker was given GPU {visible}, but OneFlow finds none on this machine: check "
            "`nvidia-smi` there, or give the node a number of `slots` instead of `gpus`"
        )
    return "cpu"


def total(values: flow.Tensor) -> flow.Tensor:
    """Returns the element-wise sum over all ranks. Every rank calls it."""
    if flow.env.get_world_size() > 1:
        flow.comm.all_reduce(values)
    return values


def check_dtype(dtype: str, mode: str, device: str) -> None:
    """Raises UsageError where this dtype cannot be trained with here."""
    if dtype == "float32":
        return
    if device == "cpu":
        raise UsageError("--dtype float16 needs a GPU, and this worker has none: use float32")
    if mode != "graph":
        raise UsageError("--dtype float16 goes with --mode graph")
