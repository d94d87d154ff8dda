"""The old operators' results, against numpy, in the real runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.legacy.material import jpeg, run_legacy_well, write_records

pytestmark = [pytest.mark.oneflow, pytest.mark.timeout(300)]

_WINDOWS = '''
import numpy as np
import oneflow as flow
import oneflow.typing as tp

draw = np.random.default_rng(3)
X = draw.standard_normal((2, 3, 6, 5)).astype(np.float32)
W = draw.standard_normal((4, 3, 3, 2)).astype(np.float32)


def pads(size, kernel, stride, dilation=1):
    """The old SAME: an odd pixel goes before."""
    needed = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return needed - needed // 2, needed // 2


def windows(x, kernel, strides, same, fill):
    if same:
        edges = [pads(n, k, s) for n, k, s in zip(x.shape[2:], kernel, strides)]
        x = np.pad(x, [(0, 0), (0, 0)] + edges, constant_values=fill)
    rows = range(0, x.shape[2] - kernel[0] + 1, strides[0])
    columns = range(0, x.shape[3] - kernel[1] + 1, strides[1])
    return np.array([[x[:, :, i:i + kernel[0], j:j + kernel[1]] for j in columns] for i in rows])


def expected(kind, kernel, strides, same):
    if kind == "conv":
        return np.einsum("yxnckl,ockl->noyx", windows(X, kernel, strides, same, 0), W)
    if kind == "max":
        return windows(X, kernel, strides, same, -np.inf).max((4, 5)).transpose(2, 3, 0, 1)
    return np.nanmean(windows(X, kernel, strides, same, np.nan), (4, 5)).transpose(2, 3, 0, 1)


def computed(kind, kernel, strides, padding, layout):
    last = layout == "NHWC"
    x = X.transpose(0, 2, 3, 1) if last else X
    w = W.transpose(0, 2, 3, 1) if last else W

    @flow.global_function()
    def job(x: tp.Numpy.Placeholder(x.shape), w: tp.Numpy.Placeholder(w.shape)) -> tp.Numpy:
        if kind == "conv":
            out = flow.nn.conv2d(x, w, strides, padding, layout)
        elif kind == "max":
            out = flow.nn.max_pool2d(x, kernel, strides, padding, layout)
        else:
            out = flow.nn.avg_pool2d(x, kernel, strides, padding, data_format=layout)
        shapes.append(out.static_shape)
        return out

    shapes = []
    out = job(x, w)
    assert shapes == [out.shape], (shapes, out.shape)
    return out.transpose(0, 3, 1, 2) if last else out


for layout in ("NCHW", "NHWC"):
    for padding in ("VALID", "SAME"):
        for kind, kernel, strides in (
            ("conv", (3, 2), (1, 1)), ("conv", (3, 2), (2, 3)),
            ("max", (2, 2), (2, 2)), ("max", (3, 2), (2, 1)),
            ("avg", (3, 3), (2, 2)), ("avg", (2, 3), (1, 2)), ("avg", (3, 3), (1, 1)),
        ):
            case = (kind, kernel, strides, padding, layout)
            want = expected(kind, kernel, strides, padding == "SAME")
            np.testing.assert_allclose(computed(*case), want, 1e-4, 1e-5, err_msg=str(case))
print("windows agree")
'''

_REST = """
import numpy as np
import oneflow as flow
import oneflow.typing as tp
from typing import Dict, List

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 10


@flow.global_function()
def job(x: tp.Numpy.Placeholder(X.shape), y: tp.Numpy.Placeholder((2, 3))) -> Dict[str, tp.Numpy]:
    bias = flow.get_variable("b", (3,), initializer=flow.constant_initializer(2))
    return {
        "kept": flow.nn.dropout(x, rate=0.5),
        "turned": flow.transpose(x, perm=[2, 0, 1]),
        "flat": flow.reshape(x, (x.shape[0], -1)),
        "biased": flow.nn.bias_add(y, bias),
        "relu": flow.keras.activations.relu(x),
        "sum": [(1 - y) * 2 + y / 4, -y],
    }


Y = np.ones((2, 3))
got = job(X, Y.astype(np.float64))
np.testing.assert_array_equal(got["kept"], X)
np.testing.assert_array_equal(got["turned"], X.transpose(2, 0, 1))
np.testing.assert_array_equal(got["flat"], X.reshape(2, 12))
np.testing.assert_array_equal(got["biased"], Y + 2)
np.testing.assert_array_equal(got["relu"], np.maximum(X, 0))
np.testing.assert_array_equal(got["sum"][0], np.full((2, 3), 0.25))
np.testing.assert_array_equal(got["sum"][1], -Y)

# Given today's tensors, outside a job function, the same names compute at once.
t = flow.tensor(X)
np.testing.assert_array_equal(flow.nn.relu(t).numpy(), np.maximum(X, 0))
assert tuple(flow.transpose(t, 0, 1).shape) == (3, 2, 4)
assert tuple(flow.reshape(t, (6, 4)).shape) == (6, 4)
images = flow.tensor(np.ones((1, 1, 4, 4), np.float32))
assert flow.nn.max_pool2d(images, 2, 2, "SAME").shape == (1, 1, 2, 2)
print("the rest agrees")
"""

_IMPORTS = """
import sys
import oneflow as flow
import oneflow.typing as tp
import oneflow.nn as nn
import oneflow.nn.functional as F
from oneflow.typing import Numpy
from oneflow import typing as also, optim
from mnist_util import load_data

real = sys.modules["oneflow"]
assert flow is not real and "oneflow.typing" not in sys.modules
assert flow.matmul is real.matmul and flow.float is real.float32 and optim is real.optim
assert F is real.nn.functional and nn.Linear is real.nn.Linear and Numpy is tp.Numpy is also.Numpy
assert not hasattr(real, "global_function") and not hasattr(real.nn, "relu")
assert hasattr(flow, "global_function") and not hasattr(flow, "no_such_thing")
assert load_data is flow.data.load_mnist
# Today's API still works beside the old one, also where OneFlow imports itself while it runs.
model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
loss = model(flow.ones(4, 3)).sum()
loss.backward()
flow.optim.SGD(model.parameters(), lr=0.1).step()
print("imports agree")
"""

_COLOURS = """
import numpy as np
import oneflow as flow


@flow.function
def job():
    image = flow.data.BlobConf(
        "encoded", shape=(6, 4, 3), dtype=flow.float,
        codec=flow.data.ImageCodec([flow.data.ImageResizePreprocessor(4, 6)]),
        preprocessors=[flow.data.NormByChannelPreprocessor((1.0, 2.0, 3.0), (2.0, 2.0, 2.0))])
    label = flow.data.BlobConf("class/label", (), flow.int32, flow.data.RawCodec())
    return flow.data.decode_ofrecord("records", (label, image), batch_size=2, data_part_num=1)


labels, images = job().get()
assert labels.tolist() == [7, 300], labels
# JPEG is not exact. The order of old is blue, green, red.
want = (np.array([[50, 100, 200], [220, 20, 40]]) - [1, 2, 3]) / 2
np.testing.assert_allclose(images[:, 3, 2], want, atol=2)
assert images.shape == (2, 6, 4, 3)
print("colours agree")
"""


@pytest.mark.parametrize(
    ("script", "says"),
    [
        pytest.param(_WINDOWS, "windows agree", id="windows"),
        pytest.param(_REST, "the rest agrees", id="rest"),
        pytest.param(_IMPORTS, "imports agree", id="imports"),
    ],
)
def test_results(tmp_path: Path, script: str, says: str) -> None:
    assert run_legacy_well(tmp_path, script) == says + "\n"


def test_records_hold_blue_first_and_are_normalized(tmp_path: Path) -> None:
    images = [(jpeg((200, 100, 50)), 7), (jpeg((40, 20, 220)), 300)]
    write_records(tmp_path / "records", images, parts=1)
    assert run_legacy_well(tmp_path, _COLOURS) == "colours agree\n"


_STRIP = """
import oneflow as flow
import oneflow.typing as tp
import numpy as np

@flow.global_function()
def job(x: tp.Numpy.Placeholder((8, 1, 6, 5))) -> tp.Numpy:
    x = flow.nn.max_pool2d(x, 2, 2, "SAME")
    x = flow.nn.avg_pool2d(x, 2, 1, "SAME")
    return flow.layers.conv2d(x, 2, 2, padding="SAME", name="c")

print(np.round(job(np.random.default_rng(0).random((8, 1, 6, 5))), 5).tolist())
"""


def test_windows_over_two_workers(tmp_path: Path) -> None:
    alone = run_legacy_well(tmp_path, _STRIP)
    assert run_legacy_well(tmp_path, _STRIP, workers_count=2, placement="all") == alone
