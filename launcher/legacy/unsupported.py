"""What the overlay says of a name or a use that it does not cover."""

from __future__ import annotations

import typing

GUIDE = "docs/legacy.md lists what --legacy-api covers"


class LegacyError(RuntimeError):
    """A script of the old API asks for something that cannot be done as it says."""


class NotCoveredError(AttributeError):
    """A name that neither OneFlow 0.9 nor the covered part of the old API has.

    It is an AttributeError so that ``hasattr`` answers no.
    """


_LEAVE_OUT_VIEW = "leaving it out: the consistent view is how --legacy-api computes"
# What a script of the old API may name that is not covered, and what stands for it today.
NEAREST: typing.Dict[str, str] = {
    "oneflow.MirroredTensorDef": "oneflow.FixedTensorDef, which is covered",
    "oneflow.assign": "oneflow.Tensor.copy_",
    "oneflow.clip_by_value": "oneflow.clamp",
    "oneflow.constant": "oneflow.full",
    "oneflow.data.OFRecordRawDecoder": "oneflow.nn.OFRecordRawDecoder",
    "oneflow.data.image_classification_reader": "oneflow.nn.OFRecordReader",
    "oneflow.data.ofrecord_image_decoder": "oneflow.nn.OFRecordImageDecoder",
    "oneflow.data.ofrecord_image_decoder_random_crop": (
        "oneflow.nn.OFRecordImageDecoderRandomCrop"
    ),
    "oneflow.data.ofrecord_reader": (
        "oneflow.data.decode_ofrecord, which is covered, or oneflow.nn.OFRecordReader"
    ),
    "oneflow.distribute": "oneflow.sbp",
    "oneflow.env.ctrl_port": "ctrl_port in cluster.yaml; oneflow.config.ctrl_port is covered",
    "oneflow.env.init": "leaving it out: the launcher starts the workers",
    "oneflow.env.machine": "nodes in cluster.yaml; oneflow.config.machine is covered",
    "oneflow.function_config().default_distribute_strategy": _LEAVE_OUT_VIEW,
    "oneflow.function_config().default_logical_view": _LEAVE_OUT_VIEW,
    "oneflow.image": "oneflow.nn.image",
    "oneflow.image.Resize": "oneflow.nn.image.Resize",
    "oneflow.layers.batch_normalization": "oneflow.nn.BatchNorm2d",
    "oneflow.layers.conv1d": "oneflow.nn.Conv1d",
    "oneflow.layers.conv3d": "oneflow.nn.Conv3d",
    "oneflow.layers.layer_norm": "oneflow.nn.LayerNorm",
    "oneflow.layers.prelu": "oneflow.nn.PReLU",
    "oneflow.layers.upsample_2d": "oneflow.nn.Upsample",
    "oneflow.load_variables": "oneflow.train.CheckPoint().load, which is covered",
    "oneflow.math": "the function of the same name in oneflow",
    "oneflow.nn.batch_normalization": "oneflow.nn.BatchNorm2d",
    "oneflow.nn.compat_conv2d": "oneflow.nn.conv2d, which is covered",
    "oneflow.nn.conv1d": "oneflow.nn.functional.conv1d",
    "oneflow.nn.conv2d_transpose": "oneflow.nn.ConvTranspose2d",
    "oneflow.nn.conv3d": "oneflow.nn.functional.conv3d",
    "oneflow.nn.leaky_relu": "oneflow.nn.functional.leaky_relu",
    "oneflow.nn.moments": "oneflow.mean and oneflow.var",
    "oneflow.nn.sigmoid_cross_entropy_with_logits": "oneflow.nn.BCEWithLogitsLoss",
    "oneflow.nn.softmax": "oneflow.softmax",
    "oneflow.nn.softmax_cross_entropy_with_logits": "oneflow.nn.CrossEntropyLoss",
    "oneflow.optimizer.AdamW": "oneflow.optim.AdamW",
    "oneflow.optimizer.CosineScheduler": "oneflow.optim.lr_scheduler.CosineDecayLR",
    "oneflow.optimizer.LAMB": "oneflow.optim.LAMB",
    "oneflow.optimizer.PolynomialSchduler": "oneflow.optim.lr_scheduler.PolynomialLR",
    "oneflow.optimizer.RMSProp": "oneflow.optim.RMSprop",
    "oneflow.random": "oneflow.rand, oneflow.randn or oneflow.nn.CoinFlip",
    "oneflow.scope.consistent_view": _LEAVE_OUT_VIEW,
    "oneflow.scope.mirrored_view": _LEAVE_OUT_VIEW,
    "oneflow.summary": "flowlaunch metrics --tensorboard",
    "oneflow.system": "torch-like code for OneFlow 0.9, run without --legacy-api",
    "oneflow.typing.Bundle": "oneflow.typing.Numpy in a tuple, which is covered",
    "oneflow.typing.ListListNumpy": "oneflow.typing.Numpy, which is covered",
    "oneflow.typing.ListNumpy": "oneflow.typing.Numpy, which is covered",
    "oneflow.variance_scaling_initializer": "oneflow.nn.init.kaiming_normal_",
    "oneflow.watch": "returning the value from the job function",
    "oneflow.xavier_normal_initializer": "oneflow.nn.init.xavier_normal_",
}


def not_covered(symbol: str) -> NotCoveredError:
    """Returns the error for a name, with the nearest way of today where one is known.

    Args:
        symbol: the whole dotted name as the script wrote it, ``oneflow.layers.conv1d``.
    """
    nearest = NEAREST.get(symbol)
    if nearest is None:
        return NotCoveredError(
            "{} is neither in OneFlow 0.9 nor in the covered part of the old API; "
            "the nearest way today is a torch-like program without --legacy-api; {}".format(
                symbol, GUIDE
            )
        )
    return NotCoveredError(
        "{} of the old API is not covered by --legacy-api; the nearest way today: {}; {}".format(
            symbol, nearest, GUIDE
        )
    )


def refuse(symbol: str, arguments: typing.Mapping[str, object]) -> None:
    """Raises for the first argument that the old API had and the overlay does not follow.

    Args:
        symbol: the function that was called.
        arguments: what it was given beyond its covered parameters, by name; None is not given.

    Raises:
        LegacyError: one of them is not None.
    """
    for name, value in sorted(arguments.items()):
        if value is not None:
            raise LegacyError(
                "{}: the argument {}={!r} is not covered by --legacy-api; leave it out; {}".format(
                    symbol, name, value, GUIDE
                )
            )
