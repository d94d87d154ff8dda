# ruff: noqa - written as scripts of that time were
"""The generation of function_config, small: trains, evaluates and reads one image."""

import numpy as np
import oneflow as flow
from mnist_util import load_data
from PIL import Image

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
    pool = flow.nn.max_pool2d(
        conv,
        ksize=4,
        strides=4,
        padding="SAME",
        name="pool",
    )
    flat = flow.reshape(pool, [pool.shape[0], -1])
    if train:
        flat = flow.nn.dropout(flat, rate=0.3)
    return flow.layers.dense(flat, 10, kernel_initializer=initializer, name="dense")


def train_config():
    config = flow.function_config()
    config.default_data_type(flow.float)
    config.train.primary_lr(0.02)
    config.train.model_update_conf({"momentum_conf": {"beta": 0.5}})
    return config


def eval_config():
    config = flow.function_config()
    config.default_data_type(flow.float)
    return config


@flow.global_function(train_config())
def train_job(
    images=flow.FixedTensorDef((BATCH, 1, 28, 28), dtype=flow.float),
    labels=flow.FixedTensorDef((BATCH,), dtype=flow.int32),
):
    with flow.fixed_placement("gpu", "0:0"):
        loss = flow.nn.sparse_softmax_cross_entropy_with_logits(labels, net(images, train=True))
    flow.losses.add_loss(loss)
    return loss


@flow.global_function(eval_config())
def eval_job(
    images=flow.FixedTensorDef((BATCH, 1, 28, 28), dtype=flow.float),
    labels=flow.FixedTensorDef((BATCH,), dtype=flow.int32),
):
    with flow.fixed_placement("gpu", "0:0"):
        return {"labels": labels, "logits": net(images, train=True)}


@flow.global_function(eval_config())
def read_job(images=flow.FixedTensorDef((1, 1, 28, 28))):
    return net(images)


right = total = 0


def count(result):
    global right, total
    labels = result["labels"]
    right += np.sum(np.argmax(result["logits"].ndarray(), 1) == labels)
    total += labels.shape[0]


if __name__ == "__main__":
    check_point = flow.train.CheckPoint()
    check_point.init()
    (images, labels), (test_images, test_labels) = load_data(BATCH, BATCH)
    for pair in zip(images, labels):
        loss = train_job(*pair).get().mean()
    check_point.save("./configured_model")
    for pair in zip(test_images, test_labels):
        eval_job(*pair).async_get(count)
    print("accuracy: {:.3f}".format(right / total))
    picture = Image.fromarray(np.uint8(test_images[0, 7, 0] * 255 + 128)).resize(
        (28, 28), Image.ANTIALIAS
    )
    grey = (np.array(picture).reshape(1, 1, 28, 28).astype(np.float32) - 128.0) / 255.0
    print("predict:", int(np.argmax(read_job(grey).get().ndarray(), 1)[0]), test_labels[0, 7])
