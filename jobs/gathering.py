"""Dense layers on the whole batch: cheaper than summing their gradients over the ranks.

Nearly all weights of these networks are in their dense layers, nearly all work is in the
convolutions before them. So each rank computes the convolutions of its own share of a batch, all
ranks exchange what comes out of them, and each does the dense layers for all images. A gradient
of the dense layers is then whole on every rank: AlexNet's ranks exchange 440 kB and the gradients
of 2.5 million weights a step, and not those of 61 million. And dropout, which is between dense
layers, is the same whatever the number of workers.

Ranks hold the same weights only if they round alike, which processors of two kinds may not. That
is tried before the first step; where it fails, the gradients are summed as everywhere else.
"""

from __future__ import annotations

import numpy as np
import oneflow as flow
from oneflow import nn

from jobs import weights

# Above, the dense layers of so many images cost a rank more than summing their gradients over a
# network of 10 Gbit/s: 6 operations a weight and image at 50 a nanosecond, against 8 bytes.
_MOST_IMAGES = 256


class GatheringFlatten(nn.Module):  # type: ignore[misc]
    """Flattens, and gives each rank the whole batch where `gathers` is set.

    Local tensors, as at evaluation, are flattened and no more.
    """

    gathers = False

    def forward(self, images: flow.Tensor) -> flow.Tensor:
        """Returns (n, channels * height * width) for (n, channels, height, width)."""
        flat = images.flatten(1)
        if not (self.gathers and flat.is_global):
            return flat
        return flat.to_global(sbp=flow.sbp.broadcast, grad_sbp=flow.sbp.split(0))


def gather_dense_layers(model: nn.Module, batch_size: int) -> bool:
    """Lets a model with a GatheringFlatten gather where that pays. Every rank calls it.

    Args:
        model: an nn.Sequential, its parameters local.
        batch_size: images in a global batch.

    Returns:
        Whether it would have paid, but the ranks round differently.
    """
    layers = list(model.children())
    places = [n for n, layer in enumerate(layers) if isinstance(layer, GatheringFlatten)]
    first = next(model.parameters())
    if not places or batch_size > _MOST_IMAGES or first.is_cuda or flow.env.get_world_size() == 1:
        return False
    alike = _round_alike(nn.Sequential(*layers[places[0] + 1 :]), batch_size)
    layers[places[0]].gathers = alike
    return not alike


def _round_alike(dense: nn.Module, batch_size: int) -> bool:
    """Tells whether all ranks compute the same gradients, to the bit, from the same numbers."""
    parameters = list(dense.parameters())
    features = next(layer.in_features for layer in dense.children() if hasattr(layer, "weight"))
    draw = np.random.default_rng(0)
    inputs = flow.tensor(draw.standard_normal((batch_size, features)), dtype=parameters[0].dtype)
    inputs.requires_grad_()
    dense.eval()  # without dropout
    logits = dense(inputs)
    labels = flow.tensor(np.arange(batch_size) % logits.shape[1])
    nn.functional.cross_entropy(logits, labels).backward()
    alike = not weights.differing([inputs.grad, *(parameter.grad for parameter in parameters)])
    dense.train()
    for parameter in parameters:
        parameter.grad = None
    return alike
