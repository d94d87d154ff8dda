"""The module that a script of the old API sees as `oneflow`."""

from __future__ import annotations

import types
import typing

import oneflow as flow

from launcher.legacy import (
    config,
    data,
    initializers,
    job_function,
    layers,
    mnist,
    ops,
    optimizers,
    placement,
    typing_,
)
from launcher.legacy.checkpoint import CheckPoint
from launcher.legacy.session import session
from launcher.legacy.unsupported import not_covered


class Overlay(types.ModuleType):
    """A module of the old API over a real one: what it does not define is the real one's."""

    def __init__(
        self, name: str, covered: typing.Mapping[str, typing.Any], real: typing.Any = None
    ) -> None:
        super().__init__(name, real.__doc__ if real else None)
        self.__dict__.update(covered)
        self._real = real

    def __getattr__(self, name: str) -> typing.Any:
        real = self.__dict__.get("_real")
        try:
            return getattr(real, name)
        except AttributeError:
            if name.startswith("__"):
                raise
            raise not_covered("{}.{}".format(self.__name__, name)) from None

    @property
    def __all__(self) -> typing.List[str]:
        return sorted(name for name in dir(self) if not name.startswith("_"))

    def __dir__(self) -> typing.List[str]:
        return sorted(set(self.__dict__) | set(dir(self.__dict__.get("_real"))))


def _module(name: str, *things: typing.Any, real: typing.Any = None) -> Overlay:
    return Overlay("oneflow." + name, {thing.__name__: thing for thing in things}, real)


def _build() -> Overlay:
    nn = _module(
        "nn",
        ops.avg_pool2d,
        ops.bias_add,
        ops.conv2d,
        ops.dropout,
        ops.max_pool2d,
        ops.relu,
        ops.sparse_softmax_cross_entropy_with_logits,
        real=flow.nn,
    )
    datasets = _module(
        "data",
        data.BlobConf,
        data.ImageCodec,
        data.ImageResizePreprocessor,
        data.NormByChannelPreprocessor,
        data.RawCodec,
        data.decode_ofrecord,
    )
    datasets.__dict__["load_mnist"] = mnist.load_data
    annotations = Overlay("oneflow.typing", {"Numpy": typing_.Numpy, "Callback": typing_.Callback})
    keras = _module("keras")
    keras.__dict__["activations"] = _module("keras.activations", ops.relu)
    covered: typing.Dict[str, typing.Any] = {
        "FixedTensorDef": typing_.TensorDef,
        "config": session.config,
        "data": datasets,
        "env": Overlay("oneflow.env", {}, flow.env),
        "fixed_placement": placement.placement,
        "function": job_function.global_function,
        "function_config": config.FunctionConfig,
        "get_variable": layers.get_variable,
        "global_function": job_function.global_function,
        "keras": keras,
        "layers": _module("layers", layers.conv2d, layers.dense),
        "losses": _module("losses", optimizers.add_loss),
        "nn": nn,
        "optimizer": _module(
            "optimizer", optimizers.Adam, optimizers.PiecewiseConstantScheduler, optimizers.SGD
        ),
        "reshape": ops.reshape,
        "scope": _module("scope", layers.namespace, placement.placement),
        "train": _module("train", CheckPoint),
        "transpose": ops.transpose,
        "typing": annotations,
    }
    for initializer in (
        initializers.constant_initializer,
        initializers.ones_initializer,
        initializers.random_normal_initializer,
        initializers.random_uniform_initializer,
        initializers.truncated_normal,
        initializers.truncated_normal_initializer,
        initializers.xavier_uniform_initializer,
        initializers.zeros_initializer,
    ):
        covered[initializer.__name__] = initializer
    return Overlay("oneflow", covered, flow)


overlay = _build()
