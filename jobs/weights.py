"""The proof that every rank holds the same weights, and loading them into a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import oneflow as flow
from oneflow import nn

from jobs.command import JobError
from jobs.engines import total


def digest(tensors: Iterable[flow.Tensor]) -> bytes:
    """Returns 32 bytes that stand for the values of all tensors, in order."""
    together = hashlib.sha256()
    for tensor in tensors:
        together.update(np.ascontiguousarray(tensor.detach().numpy()).data)
    return together.digest()


def differing(tensors: Iterable[flow.Tensor]) -> list[int]:
    """Returns the ranks whose tensors differ from rank 0's in any bit. Every rank calls it."""
    rank, world_size = flow.env.get_rank(), flow.env.get_world_size()
    if world_size == 1:
        return []
    rows = np.zeros((world_size, 32), np.float32)
    rows[rank] = np.frombuffer(digest(tensors), np.uint8)
    rows = total(flow.tensor(rows)).numpy()
    return [other for other in range(world_size) if (rows[other] != rows[0]).any()]


def check_same(parameters: Iterable[flow.Tensor], step: int) -> None:
    """Compares the parameters of all ranks. Every rank calls it.

    Parameters, not buffers: running statistics differ from rank to rank by design.

    Raises:
        JobError: on every rank, where some rank differs from rank 0.
    """
    others = differing(parameters)
    if others:
        names = ", ".join(map(str, others))
        raise JobError(f"at step {step} these ranks hold other weights than rank 0: {names}")


def load(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Puts a checkpoint's weights into a model.

    Raises:
        JobError: they are not this model's.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    weights = state.get("model") if isinstance(state, Mapping) else None
    if not isinstance(weights, Mapping):
        raise JobError("the checkpoint holds no model of these jobs")
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if found != wanted:
        strange = sorted(set(found.items()) ^ set(wanted.items()))
        raise JobError(f"the checkpoint is of another model: {strange[0][0]} differs")
    model.load_state_dict(weights)
