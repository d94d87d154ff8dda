"""One training step over all workers, by OneFlow's global tensors, eagerly or in an nn.Graph.

Parameters are whole on every rank, a batch is split over the ranks, and OneFlow sums what that
leaves in parts: each engine follows the mean loss over the whole batch, also where the shares are
not equal. DistributedDataParallel does the same with more passes over memory: it zeroes its
gradients, adds to them and scales them.
"""

from __future__ import annotations

import abc
import copy
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import oneflow as flow
from oneflow import nn

from jobs.command import JobError, UsageError

if TYPE_CHECKING:
    State = dict[str, Any]


class Engine(abc.ABC):
    """A model whose parameters are global tensors, whole on every rank, and its optimizer."""

    def __init__(self, model: nn.Module) -> None:
        """Makes the model's parameters global. Ranks must hold the same."""
        device = "cuda" if next(model.parameters()).is_cuda else "cpu"
        self._placement = flow.placement(device, list(range(flow.env.get_world_size())))
        self._model = model.to_global(placement=self._placement, sbp=flow.sbp.broadcast)
        # The same memory as local tensors: what training changes is seen there.
        tensors = [*model.parameters(), *model.buffers()]
        self._local = copy.deepcopy(model, {id(tensor): _local_view(tensor) for tensor in tensors})

    @abc.abstractmethod
    def step(self, images: flow.Tensor, labels: flow.Tensor, scale: float) -> flow.Tensor:
        """Trains on this rank's share of a batch; returns what `mean_loss` takes.

        Args:
            images: (n, channels, height, width) float32.
            labels: (n,) int64.
            scale: of the gradients, 0..1. A graph's learning rate is fixed when it is compiled;
                this does the same for both engines.
        """

    @abc.abstractmethod
    def state(self) -> State:
        """Returns model and optimizer for a checkpoint, as local tensors."""

    def mean_loss(self, loss: flow.Tensor) -> float:
        """Returns the mean loss over the global batch. Every rank calls it."""
        return float(loss.to_global(sbp=flow.sbp.broadcast).to_local().item())

    def local_model(self) -> nn.Module:
        """Returns the model with local parameters, for evaluation on this rank's own images.

        Short graphs can crash on CPU, so it is an eager one for both engines.
        """
        return self._local

    def parameters(self) -> Iterator[flow.Tensor]:
        """Yields this rank's parameters, as local tensors."""
        yield from self._local.parameters()

    def _share(self, tensor: flow.Tensor) -> flow.Tensor:
        """Returns the global tensor of which each rank holds its own part."""
        return tensor.to_global(placement=self._placement, sbp=flow.sbp.split(0))


class EagerEngine(Engine):
    """Eager mode."""

    def __init__(
        self, model: nn.Module, *, lr: float, momentum: float, optimizer: State | None
    ) -> None:
        super().__init__(model)
        self._optimizer = flow.optim.SGD(self._model.parameters(), lr=lr, momentum=momentum)
        if optimizer is not None:
            self._optimizer.load_state_dict(_everywhere(optimizer, self._placement))

    def step(self, images: flow.Tensor, labels: flow.Tensor, scale: float) -> flow.Tensor:
        """Trains on this rank's share of a batch."""
        loss = _loss(self._model(self._share(images)), self._share(labels))
        (loss * scale if scale < 1 else loss).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def state(self) -> State:
        """Returns model and optimizer."""
        optimizer = _here(self._optimizer.state_dict())
        return {"model": self._local.state_dict(), "optimizer": optimizer}


class GraphEngine(Engine):
    """An nn.Graph."""

    def __init__(
        self, model: nn.Module, *, lr: float, momentum: float, half: bool,
        optimizer: State | None,
    ) -> None:  # fmt: skip
        super().__init__(model)
        self._graph = _TrainGraph(self._model, lr=lr, momentum=momentum, half=half)
        if optimizer is not None:
            self._graph.load_state_dict(_everywhere(optimizer, self._placement), strict=False)

    def step(self, images: flow.Tensor, labels: flow.Tensor, scale: float) -> flow.Tensor:
        """Trains on this rank's share of a batch."""
        factor = flow.tensor([scale]).to_global(placement=self._placement, sbp=flow.sbp.broadcast)
        return self._graph(self._share(images), self._share(labels), factor)

    def state(self) -> State:
        """Returns model and optimizer. The graph names the optimizer's tensors."""
        state = self._graph.state_dict()
        extra = {key: _here(value) for key, value in state.items() if not isinstance(value, dict)}
        return {"model": self._local.state_dict(), "graph": extra}


class _TrainGraph(nn.Graph):  # type: ignore[misc]
    def __init__(self, model: nn.Module, *, lr: float, momentum: float, half: bool) -> None:
        super().__init__()
        self.model = model
        self.add_optimizer(flow.optim.SGD(model.parameters(), lr=lr, momentum=momentum))
        if half:
            self.config.enable_amp(True)
            self.set_grad_scaler(flow.amp.GradScaler())

    def build(self, images: flow.Tensor, labels: flow.Tensor, scale: flow.Tensor) -> flow.Tensor:
        loss = _loss(self.model(images), labels)
        (loss * scale).sum().backward()
        return loss


def _loss(logits: flow.Tensor, labels: flow.Tensor) -> flow.Tensor:
    """Returns the mean over the global batch; labels follow where the logits are."""
    return nn.functional.cross_entropy(logits, labels.to_global(sbp=logits.sbp))


def _local_view(tensor: flow.Tensor) -> flow.Tensor:
    local = tensor.detach().to_local()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(local, requires_grad=False)
    return local


def _everywhere(state: Any, placement: Any) -> Any:
    """Returns an optimizer's state with its tensors global, whole on every rank."""
    if isinstance(state, dict):
        return {key: _everywhere(value, placement) for key, value in state.items()}
    if isinstance(state, flow.Tensor):
        return state.to_global(placement=placement, sbp=flow.sbp.broadcast)
    return state


def _here(state: Any) -> Any:
    """Returns an optimizer's state with its tensors local."""
    if isinstance(state, dict):
        return {key: _here(value) for key, value in state.items()}
    return state.to_local() if isinstance(state, flow.Tensor) else state


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
