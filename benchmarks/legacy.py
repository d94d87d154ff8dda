"""What --legacy-api costs: LeNet of the tutorial, in the old API and written for OneFlow 0.9.

    python benchmarks/legacy.py --python RUNTIME/bin/python

Each variant trains in a process of its own, as a user's script does, on the same random images and
with the settings that the worker's bootstrap gives. They take turns, so that whatever else the
machine does meets all alike, and medians are compared. Every step's loss is read, as the
tutorial's script does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BATCH = 100
WARM_UP = 5
SETTINGS = {
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEFLOW_ENABLE_ONEDNN_OPTS": "0",
    "ONEFLOW_VM_COMPUTE_ON_WORKER_THREAD": "0",
    "OMP_NUM_THREADS": "1",
    "GLOG_minloglevel": "2",
}
Step = Callable[[Any, Any], float]


def legacy_step() -> Step:
    """Returns the tutorial's training step, in its own words."""
    from launcher.legacy import install

    install("script")
    import oneflow as flow
    import oneflow.typing as tp

    initializer = flow.truncated_normal(0.1)

    def conv(images: Any, filters: int, name: str) -> Any:
        made = flow.layers.conv2d(
            images, filters, 5, padding="SAME", activation=flow.nn.relu, name=name,
            kernel_initializer=initializer,
        )  # fmt: skip
        return flow.nn.max_pool2d(made, ksize=2, strides=2, padding="SAME")

    # The annotations are read: they may not become text.
    def train_job(images: Any, labels: Any) -> Any:
        pool = conv(conv(images, 32, "conv1"), 64, "conv2")
        hidden = flow.layers.dense(
            flow.reshape(pool, [pool.shape[0], -1]), 512, activation=flow.nn.relu,
            kernel_initializer=initializer, name="dense1",
        )  # fmt: skip
        hidden = flow.nn.dropout(hidden, rate=0.5, name="dropout")
        logits = flow.layers.dense(hidden, 10, kernel_initializer=initializer, name="dense2")
        loss = flow.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        rate = flow.optimizer.PiecewiseConstantScheduler([], [0.01])
        flow.optimizer.SGD(rate, momentum=0).minimize(loss)
        return loss

    train_job.__annotations__ = {
        "images": tp.Numpy.Placeholder((BATCH, 1, 28, 28), dtype=flow.float),
        "labels": tp.Numpy.Placeholder((BATCH,), dtype=flow.int32),
        "return": tp.Numpy,
    }
    job = flow.global_function(type="train")(train_job)
    return lambda images, labels: float(job(images, labels).mean())


def _network() -> Any:
    from oneflow import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10),
    )  # fmt: skip


def graph_step() -> Step:
    """Returns the step of the same network in an nn.Graph."""
    import oneflow as flow

    network = _network()
    loss_of = flow.nn.CrossEntropyLoss()

    class Train(flow.nn.Graph):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.loss_of = loss_of
            self.add_optimizer(flow.optim.SGD(network.parameters(), lr=0.01))

        def build(self, images: Any, labels: Any) -> Any:
            loss = self.loss_of(self.network(images), labels)
            loss.backward()
            return loss

    train = Train()
    return lambda images, labels: float(train(flow.tensor(images), flow.tensor(labels)).numpy())


def eager_step() -> Step:
    """Returns the step of the same network in eager mode."""
    import oneflow as flow

    network = _network()
    loss_of = flow.nn.CrossEntropyLoss()
    optimizer = flow.optim.SGD(network.parameters(), lr=0.01)

    def step(images: Any, labels: Any) -> float:
        loss = loss_of(network(flow.tensor(images)), flow.tensor(labels))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.numpy())

    return step


VARIANTS = {"legacy": legacy_step, "graph": graph_step, "eager": eager_step}


def measure(name: str, steps: int) -> None:
    """Prints one variant's median seconds a step."""
    draw = np.random.default_rng(0)
    images = draw.random((BATCH, 1, 28, 28), dtype=np.float32) - 0.5
    labels = draw.integers(0, 10, BATCH).astype(np.int32)
    step = VARIANTS[name]()
    import oneflow as flow

    taken = []
    for number in range(WARM_UP + steps):
        begin = time.perf_counter()
        step(images, labels)
        # A loss is there before the update is: what is left would be the next one's time.
        flow._oneflow_internal.eager.Sync()
        if number >= WARM_UP:
            taken.append(time.perf_counter() - begin)
    print(statistics.median(taken))


def speed_of(name: str, python: str, steps: int) -> float:
    """Returns one variant's images/s in a process of its own."""
    command = [python, __file__, "--measure", name, "--steps", str(steps)]
    env = {**os.environ, **SETTINGS, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return BATCH / float(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures in the runtime, with its settings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the OneFlow runtime's")
    parser.add_argument("--steps", type=int, default=40, help="of 100 images each (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--measure", choices=tuple(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.steps)
        return
    speeds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(options.rounds):
        for name, found in speeds.items():
            found.append(speed_of(name, options.python, options.steps))
    legacy = statistics.median(speeds["legacy"])
    for name, found in speeds.items():
        speed = statistics.median(found)
        print(f"{name:>7} {speed:7.1f} images/s, legacy is {legacy / speed:.3f} of it")


if __name__ == "__main__":
    main()
