"""Carries weights between a checkpoint of the old API and one of flowlaunch's jobs.

    python -m launcher.legacy.convert lenet_models_1 checkpoints          # to jobs/lenet.py
    python -m launcher.legacy.convert checkpoints/step-00000600 lenet_models_1      # and back

Run with the OneFlow runtime's interpreter. What SOURCE is, is seen from its files.
"""

from __future__ import annotations

import argparse
import os
import sys
import typing

import numpy as np

from launcher.legacy.snapshot import DONE, Form, read_snapshot, write_snapshot
from launcher.legacy.unsupported import LegacyError
from launcher.worker import checkpoint, snapshot

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]
    Weights = typing.Dict[str, Array]

_STEP = "System-Train-TrainStep-"


class Weight(typing.NamedTuple):
    """One variable under both names. Both hold the same numbers in the same order."""

    old: str
    new: str
    old_shape: typing.Tuple[int, ...]
    new_shape: typing.Tuple[int, ...]


def _same(old: str, new: str, *shape: int) -> Weight:
    return Weight(old, new, shape, shape)


NETWORKS: typing.Dict[str, typing.Tuple[Weight, ...]] = {
    "lenet": (
        _same("conv1-weight", "0.conv.weight", 32, 1, 5, 5),
        Weight("conv1-bias", "0.bias", (32,), (1, 32, 1, 1)),
        _same("conv2-weight", "3.conv.weight", 64, 32, 5, 5),
        Weight("conv2-bias", "3.bias", (64,), (1, 64, 1, 1)),
        _same("dense1-weight", "7.weight", 512, 3136),
        _same("dense1-bias", "7.bias", 512),
        _same("dense2-weight", "10.weight", 10, 512),
        _same("dense2-bias", "10.bias", 10),
    ),
    "alexnet": (
        _same("conv1-weight", "0.weight", 64, 3, 11, 11),
        _same("conv2-weight", "3.weight", 192, 64, 5, 5),
        _same("conv3-weight", "6.weight", 384, 192, 3, 3),
        _same("conv4-weight", "8.weight", 384, 384, 3, 3),
        _same("conv5-weight", "10.weight", 256, 384, 3, 3),
        _same("fc1-weight", "14.weight", 4096, 9216),
        _same("fc2-weight", "17.weight", 4096, 4096),
        _same("fc3-weight", "20.weight", 1001, 4096),
    ),
}


def network_of(names: typing.Collection[str], where: str, old: bool) -> typing.Tuple[Weight, ...]:
    """Returns the network whose weights have these names.

    Args:
        names: of the variables; more than the network's are fine in an old checkpoint.
        where: what an error calls the checkpoint.
        old: whether they are names of the old API.

    Raises:
        LegacyError: they are those of no network that both sides have.
    """
    for weights in NETWORKS.values():
        wanted = {weight.old if old else weight.new for weight in weights}
        if wanted <= set(names) and (old or len(wanted) == len(names)):
            return weights
    raise LegacyError(
        "{} holds neither the tutorials' LeNet nor their AlexNet, the networks that jobs/lenet.py "
        "and jobs/alexnet.py have too: it holds {}".format(where, ", ".join(sorted(names)))
    )


def to_job(source: str, directory: str, batch_size: int, rate: float) -> str:
    """Publishes an old checkpoint as one that ``jobs/`` resume from, and returns its directory.

    Its step is the old one's count of steps, 0 where it has none.

    Args:
        source: a directory of `flow.train.CheckPoint.save`.
        directory: where ``step-<8 digits>`` is put.
        batch_size: of the training that goes on, over all workers.
        rate: its learning rate.
    """
    import oneflow as flow

    weights = network_of(os.listdir(source), source, old=True)
    forms: typing.Dict[str, Form] = {one.old: (one.old_shape, np.float32) for one in weights}
    counts: typing.Dict[str, Form] = {
        name: ((1,), np.int64) for name in os.listdir(source) if name.startswith(_STEP)
    }
    values = read_snapshot(source, forms, counts)
    step = max([int(values[name][0]) for name in counts] or [0])
    model = {one.new: flow.tensor(values[one.old].reshape(one.new_shape)) for one in weights}
    # An optimizer that remembers nothing; it numbers its parameters by their place.
    optimizer = flow.optim.SGD([flow.nn.Parameter(one) for one in model.values()], lr=rate)
    state = {
        "model": model,
        "optimizer": optimizer.state_dict(),
        "graph": {},
        "step": step,
        "batch_size": batch_size,
    }
    meta = {"converted_from": os.path.basename(os.path.abspath(source))}
    taken = snapshot.take(state, rank=0, in_parts=False, copy=False)
    return checkpoint.publish(taken, checkpoint.Target(directory, step, meta))


def to_old(source: str, target: str) -> str:
    """Writes a job's checkpoint as one that `flow.train.CheckPoint.load` takes; returns target.

    Args:
        source: a directory ``step-<8 digits>``.
        target: a directory that does not exist, or is empty.
    """
    model = checkpoint.load(source)["model"]
    values = {
        one.old: model[one.new].numpy().reshape(one.old_shape)
        for one in network_of(list(model), source, old=False)
    }
    write_snapshot(target, values)
    return target


def main(argv: typing.Sequence[str]) -> int:
    """Converts; prints what it made and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m launcher.legacy.convert",
        description="Carries weights between a checkpoint of the old API and one of the jobs.",
    )
    parser.add_argument("source", help="the old checkpoint, or a directory step-<8 digits>")
    parser.add_argument("target", help="the folder for step-<8 digits>, or the old checkpoint")
    parser.add_argument("--batch-size", type=int, default=100, help="to resume with (%(default)s)")
    parser.add_argument("--lr", type=float, default=0.1, help="to resume with (%(default)s)")
    options = parser.parse_args(list(argv))
    try:
        if os.path.isfile(os.path.join(options.source, DONE)):
            made = to_job(options.source, options.target, options.batch_size, options.lr)
        else:
            made = to_old(options.source, options.target)
    except (LegacyError, checkpoint.CheckpointError, ValueError, OSError) as error:
        sys.stderr.write("error: {}\n".format(error))
        return 1
    sys.stdout.write(made + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
