"""Optimizers, learning rates and checkpoints with the old meaning, in the real runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.legacy.material import run_legacy, run_legacy_well

pytestmark = [pytest.mark.oneflow, pytest.mark.timeout(300)]

# One variable, whose gradient of the mean loss is the mean of x, so every update is known.
_SCRIPT = """
import sys
import numpy as np
import oneflow as flow
import oneflow.typing as tp

X = np.array([[1.0], [2.0], [3.0], [6.0]], np.float32)  # mean 3


def loss_of(x):
    w = flow.get_variable("w", (1, 1), initializer=flow.constant_initializer(1.0))
    # Work that changes nothing: an nn.Graph of microseconds can crash OneFlow 0.9 on a CPU.
    kernel = flow.get_variable(
        "fixed", (16, 16, 5, 5), initializer=flow.constant_initializer(5.0), trainable=False)
    noise = flow.get_variable(
        "images", (1, 16, 96, 96), initializer=flow.constant_initializer(1.0), trainable=False)
    work = flow.nn.avg_pool2d(flow.nn.conv2d(noise, kernel, 1, "SAME"), 96, 96, "VALID")
    return x * w + flow.reshape(work, (4, 4)) * 0

{decorated}

look = None
@flow.global_function()
def look(x: tp.Numpy.Placeholder((1, 1))) -> tp.Numpy:
    return flow.get_variable("w", (1, 1), initializer=flow.constant_initializer(1.0)) * x

def w():
    return float(look(np.ones((1, 1)))[0, 0])

{main}
"""

_MINIMIZE = """
@flow.global_function(type="train")
def train(x: tp.Numpy.Placeholder((4, 1))) -> tp.Numpy:
    loss = loss_of(x)
    {optimizer}.minimize(loss)
    return loss
"""

_CONFIGURED = """
def config():
    made = flow.function_config()
    made.train.primary_lr(0.1)
    made.train.model_update_conf({conf})
    return made

@flow.global_function(config())
def train(x=flow.FixedTensorDef((4, 1))):
    loss = loss_of(x)
    flow.losses.add_loss(loss)
    return loss
"""

_STEPS = """
for i in range(4):
    train(X)
    print("%.6f" % w())
"""

_RATE = "flow.optimizer.PiecewiseConstantScheduler([], [0.1])"


def _after(values: list[float]) -> list[float]:
    """Returns 1 less the running sum."""
    out, w = [], 1.0
    for value in values:
        w -= value
        out.append(w)
    return out


def _momentum(beta: float, rates: list[float]) -> list[float]:
    kept, steps = 0.0, []
    for rate in rates:
        kept = beta * kept + 3.0
        steps.append(rate * kept)
    return _after(steps)


def _adam() -> list[float]:
    m = v = 0.0
    steps = []
    for _ in range(4):
        m, v = 0.9 * m + 0.1 * 3, 0.999 * v + 0.001 * 9
        steps.append(0.1 * m / (v**0.5 + 1e-8))
    return _after(steps)


@pytest.mark.parametrize(
    ("decorated", "expected"),
    [
        pytest.param(
            _MINIMIZE.format(optimizer=f"flow.optimizer.SGD({_RATE}, momentum=0)"),
            _after([0.3] * 4),
            id="sgd",
        ),
        pytest.param(
            _MINIMIZE.format(optimizer=f"flow.optimizer.SGD({_RATE})"),
            _momentum(0.9, [0.1] * 4),
            id="sgd-has-momentum-by-default",
        ),
        pytest.param(
            _MINIMIZE.format(
                optimizer="flow.optimizer.SGD(flow.optimizer.PiecewiseConstantScheduler("
                "[0, 2], [0.1, 0.01, 1.0]), momentum=0)"
            ),
            _after([0.3, 0.03, 0.03, 3.0]),
            id="piecewise-constant",
        ),
        pytest.param(
            _MINIMIZE.format(optimizer=f"flow.optimizer.Adam({_RATE})"), _adam(), id="adam"
        ),
        pytest.param(_CONFIGURED.format(conf='{"naive_conf": {}}'), _after([0.3] * 4), id="naive"),
        pytest.param(
            _CONFIGURED.format(conf='{"momentum_conf": {"beta": 0.5}}'),
            _momentum(0.5, [0.1] * 4),
            id="momentum",
        ),
        pytest.param(_CONFIGURED.format(conf='{"adam_conf": {}}'), _adam(), id="adam-conf"),
    ],
)
def test_updates(tmp_path: Path, decorated: str, expected: list[float]) -> None:
    out = run_legacy_well(tmp_path, _SCRIPT.format(decorated=decorated, main=_STEPS))
    assert [float(line) for line in out.split()] == pytest.approx(expected, abs=2e-5)


_HALVES = """
check_point = flow.train.CheckPoint()
if sys.argv[1] == "first":
    train(X); train(X)
    check_point.save("half")
else:
    check_point.load("half")
    train(X); train(X)
    print("%.6f" % w())
"""


@pytest.mark.parametrize("workers", [(1, 1), (2, 1), (1, 2)])
def test_a_loaded_checkpoint_goes_on_as_if_nothing_was(
    tmp_path: Path, workers: tuple[int, int]
) -> None:
    scheduler = "flow.optimizer.PiecewiseConstantScheduler([2], [0.1, 0.01])"
    decorated = _MINIMIZE.format(optimizer=f"flow.optimizer.SGD({scheduler})")
    script = _SCRIPT.format(decorated=decorated, main=_HALVES)
    run_legacy_well(tmp_path, script, "first", workers_count=workers[0], placement="all")
    files = sorted(
        str(path.relative_to(tmp_path / "half")) for path in (tmp_path / "half").rglob("*")
    )
    assert files == [
        "System-Train-TrainStep-train", "System-Train-TrainStep-train/out",
        "fixed", "fixed/out", "images", "images/out", "snapshot_done",
        "w", "w-momentum", "w-momentum/out", "w/out",
    ]  # fmt: skip
    assert not list(tmp_path.glob(".half*")), "nothing is left of the writing"
    # The old momentum is the last step itself: 0.1 * (0.9 * 3 + 3) downwards.
    kept = np.fromfile(tmp_path / "half" / "w-momentum" / "out", np.float32)
    assert kept == pytest.approx([-0.57], abs=1e-5)
    out = run_legacy_well(tmp_path, script, "then", workers_count=workers[1], placement="all")
    expected = _momentum(0.9, [0.1, 0.1, 0.1, 0.01])[-1]
    assert float(out) == pytest.approx(expected, abs=2e-5)


_ERRORS = """
import traceback

def says(what, *words):
    try:
        what()
    except Exception as error:
        lost = [word for word in words if word not in str(error)]
        assert not lost, (lost, str(error))
        return
    raise AssertionError("no error about {}".format(words))

check_point = flow.train.CheckPoint()
check_point.save("here")
says(lambda: check_point.save("here"), "here is there already", "remove it")
says(lambda: check_point.load("nowhere"), "nowhere is no complete checkpoint", "snapshot_done")
import os, shutil
shutil.copytree("here", "less"); shutil.rmtree("less/fixed")
says(lambda: check_point.load("less"), "lacks the variable(s) fixed")
open("here/w/out", "ab").write(b"more")
says(lambda: check_point.load("here"), "holds 8 bytes", "takes 4")

says(lambda: train(X[:2]), "argument x has the shape (2, 1), declared is (4, 1)")
says(lambda: flow.layers.batch_normalization, "oneflow.layers.batch_normalization", "BatchNorm2d")
says(lambda: flow.math, "oneflow.math")
says(lambda: flow.image, "oneflow.nn.image")
says(lambda: flow.env.machine([]), "oneflow.config.machine is covered")
assert flow.env.get_world_size() == 1
says(lambda: flow.scope.consistent_view(), "leaving it out")
says(lambda: flow.function_config().default_logical_view, "leaving it out")
says(lambda: flow.config.train.primary_lr(1), "belongs into the body of a job function")
says(lambda: flow.config.enable_debug_mode, "oneflow.config.enable_debug_mode")
says(lambda: flow.get_variable("v", (1,)), "belongs into the body")
says(lambda: flow.scope.placement("tpu", "0:0").__enter__(), "tpu")

def body(function, **decorator):
    job = flow.global_function(**decorator)(function)
    return lambda: job(X)

def truth(x: tp.Numpy.Placeholder((4, 1))):
    return x if x else None
says(body(truth), "has no truth")
"""

_ONE_ERROR = """
import oneflow as flow
import oneflow.typing as tp
import numpy as np

def zeros():
    return flow.zeros_initializer()

@flow.global_function(type={kind!r})
def job(x: tp.Numpy.Placeholder((4, 4))) -> tp.Numpy:
    {body}

job(np.zeros((4, 4)))
"""


def test_errors_name_the_thing_and_what_to_do(tmp_path: Path) -> None:
    decorated = _MINIMIZE.format(optimizer=f"flow.optimizer.SGD({_RATE})")
    run_legacy_well(tmp_path, _SCRIPT.format(decorated=decorated, main=_ERRORS))


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("predict", "return flow.matmul(x, x)", "a function of OneFlow 0.9 was given a value"),
        ("predict", "return x.foo()", "Blob.foo"),
        ("train", "return x", 'type="train", but no optimizer'),
        ("predict", "flow.losses.add_loss(x); return x", 'say type="train"'),
        (
            "predict",
            'return flow.layers.dense(x, 3, kernel_regularizer=1, name="d")',
            "the argument kernel_regularizer=1 is not covered",
        ),
        (
            "predict",
            'return flow.nn.max_pool2d(flow.reshape(x, (1, 1, 4, 4)), 2, 2, "SOME")',
            "padding is 'SOME'; it may be VALID, SAME",
        ),
    ],
)
def test_a_wrong_body_is_explained(tmp_path: Path, kind: str, body: str, words: str) -> None:
    (ended,) = run_legacy(tmp_path, _ONE_ERROR.format(kind=kind, body=body))
    assert ended.code == 1
    assert words in ended.err, ended.err
