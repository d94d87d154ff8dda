# ruff: noqa - written as scripts of that time were
"""The generation of typed job functions, small: ``typed.py train|eval``."""

import sys
from typing import Tuple

import numpy as np
import oneflow as flow
import oneflow.typing as tp

BATCH = 20


def net(images, train=False):
    initializer = flow.truncated_normal(0.1)
    conv = flow.layers.conv2d(
        images,
        8,
        5,
        padding="SAME",
        activation=flow.nn.relu,
        name="conv",
        kernel_initializer=initializer,
    )
    pool = flow.nn.max_pool2d(conv, ksize=4, strides=4, padding="SAME", name="pool")
    flat = flow.reshape(pool, [pool.shape[0], -1])
    hidden = flow.layers.dense(
        flat, 32, activation=flow.nn.relu, kernel_initializer=initializer, name="dense1"
    )
    if train:
        hidden = flow.nn.dropout(hidden, rate=0.5, name="dropout")
    return flow.layers.dense(hidden, 10, kernel_initializer=initializer, name="dense2")


@flow.global_function(type="train")
def train_job(
    images: tp.Numpy.Placeholder((BATCH, 1, 28, 28), dtype=flow.float),
    labels: tp.Numpy.Placeholder((BATCH,), dtype=flow.int32),
) -> tp.Numpy:
    print("the body of train_job runs")
    with flow.scope.placement("gpu", "0:0"):
        loss = flow.nn.sparse_softmax_cross_entropy_with_logits(labels, net(images, train=True))
    rate = flow.optimizer.PiecewiseConstantScheduler([], [0.05])
    flow.optimizer.SGD(rate, momentum=0).minimize(loss)
    return loss


@flow.global_function(type="predict")
def eval_job(
    images: tp.Numpy.Placeholder((BATCH, 1, 28, 28), dtype=flow.float),
    labels: tp.Numpy.Placeholder((BATCH,), dtype=flow.int32),
) -> Tuple[tp.Numpy, tp.Numpy]:
    with flow.scope.placement("gpu", "0:0"):
        logits = net(images)
    return labels, logits


if __name__ == "__main__":
    flow.config.gpu_device_num(1)
    check_point = flow.train.CheckPoint()
    (images, labels), (test_images, test_labels) = flow.data.load_mnist(BATCH, BATCH)
    if sys.argv[1] == "train":
        check_point.init()
        for pair in zip(images, labels):
            print("loss {:.7f}".format(train_job(*pair).mean()))
        check_point.save("./typed_model")
        print("saved")
    else:
        check_point.load("./typed_model")
        right = 0
        for one, answers in zip(test_images, test_labels):
            answers, logits = eval_job(one, answers)
            right += np.sum(np.argmax(logits, 1) == answers)
        print("accuracy: {:.3f}".format(right / test_labels.size))
