"""The networks of the tutorials.

Weights are drawn with numpy from a seed, so that they are the same wherever they are drawn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import oneflow as flow
from oneflow import nn

from jobs.gathering import GatheringFlatten

Values = npt.NDArray[np.float32]

ALEXNET_CLASSES = 1001
# Photographs less their mean reach from -124 to 151. The network is homogeneous (no biases), so
# each layer takes an equal part in bringing that down to logits of order one: then all layers
# learn at one rate.
_INPUT_SCALE = 64.0


class BiasedConv(nn.Module):  # type: ignore[misc]
    """A SAME convolution with its bias added as a broadcast.

    nn.Conv2d's own bias add takes up to 130 ms on a CPU where this takes a few.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bias = nn.Parameter(flow.zeros(1, outputs, 1, 1))

    def forward(self, images: flow.Tensor) -> flow.Tensor:
        """Returns (n, outputs, height, width) for (n, inputs, height, width)."""
        return self.conv(images) + self.bias


def lenet(*, dropout: float, seed: int) -> nn.Module:
    """Returns the LeNet of the MNIST tutorial: (n, 1, 28, 28) to logits (n, 10)."""
    model = nn.Sequential(
        BiasedConv(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2, 2),
        BiasedConv(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2, 2),
        GatheringFlatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), _dropout(dropout),
        nn.Linear(512, 10),
    )  # fmt: skip
    draw = np.random.default_rng(seed)
    for parameter in model.parameters():
        is_bias = parameter.ndim == 1 or parameter.shape[0] == 1
        values = (
            np.zeros(parameter.shape, np.float32)
            if is_bias
            else truncated_normal(draw, tuple(parameter.shape), 0.1)
        )
        _assign(parameter, values)
    return model


def truncated_normal(draw: np.random.Generator, shape: tuple[int, ...], std: float) -> Values:
    """Returns normal values, redrawn where they lie beyond two standard deviations."""
    values = draw.standard_normal(shape, dtype=np.float32)
    beyond = np.abs(values) > 2
    while beyond.any():
        values[beyond] = draw.standard_normal(int(beyond.sum()), dtype=np.float32)
        beyond = np.abs(values) > 2
    values *= np.float32(std)
    return values


def alexnet(*, dropout: float, seed: int, init: str) -> nn.Module:
    """Returns the tutorial's AlexNet: (n, 3, 227, 227) to logits (n, 1001); no biases.

    Args:
        dropout: after each of the two hidden dense layers; 0 leaves it out.
        seed: of the weights.
        init: "default" trains; "tutorial" is uniform in [0, 1), which overflows in two steps.
    """
    model = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, bias=False), nn.ReLU(), nn.AvgPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2, bias=False), nn.ReLU(), nn.AvgPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1, bias=False), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, bias=False), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(3, 2),
        GatheringFlatten(),
        *_dense(256 * 6 * 6, dropout), *_dense(4096, dropout),
        nn.Linear(4096, ALEXNET_CLASSES, bias=False),
    )  # fmt: skip
    draw = np.random.default_rng(seed)
    weights = list(model.parameters())
    for weight in weights:
        if init == "tutorial":
            values = draw.random(tuple(weight.shape), dtype=np.float32)
        else:
            fan_in = float(np.prod(weight.shape[1:]))
            scale = np.sqrt(2.0 / fan_in) / _INPUT_SCALE ** (1 / len(weights))
            values = draw.standard_normal(tuple(weight.shape), dtype=np.float32)
            values *= np.float32(scale)
        _assign(weight, values)
    return model


def _dense(inputs: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(inputs, 4096, bias=False), nn.ReLU(), _dropout(dropout)]


def _dropout(probability: float) -> nn.Module:
    """Returns a layer in either case: parameters are named by their layer's place."""
    return nn.Dropout(probability) if probability > 0 else nn.Identity()


def _assign(parameter: flow.Tensor, values: Values) -> None:
    with flow.no_grad():
        parameter.copy_(flow.tensor(values))
