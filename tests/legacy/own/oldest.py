# ruff: noqa - written as scripts of that time were
"""The oldest generation, small: flow.function, in-body settings, records as data."""

import sys

import oneflow as flow

DIRECTORY = "./records"
BATCH = 8


def load():
    image = flow.data.BlobConf(
        "encoded",
        shape=(96, 96, 3),
        dtype=flow.float,
        codec=flow.data.ImageCodec([flow.data.ImageResizePreprocessor(96, 96)]),
        preprocessors=[flow.data.NormByChannelPreprocessor((123.68, 116.78, 103.94))],
    )
    label = flow.data.BlobConf(
        "class/label", shape=(), dtype=flow.int32, codec=flow.data.RawCodec()
    )
    return flow.data.decode_ofrecord(
        DIRECTORY, (label, image), batch_size=BATCH, data_part_num=4, name="decode"
    )


def net(images, labels):
    x = flow.transpose(images, name="transpose", perm=[0, 3, 1, 2])
    weight = flow.get_variable(
        "conv-weight",
        shape=(32, x.static_shape[1], 5, 5),
        dtype=x.dtype,
        initializer=flow.random_uniform_initializer(-0.002, 0.002),
    )
    x = flow.nn.conv2d(x, weight, 2, "VALID", "NCHW", 1, name="conv")
    x = flow.keras.activations.relu(x)
    x = flow.nn.avg_pool2d(x, 3, 2, "VALID", "NCHW", name="pool")
    if len(x.shape) > 2:
        x = flow.reshape(x, shape=(x.static_shape[0], -1))
    x = flow.layers.dense(
        inputs=x,
        units=10,
        activation=None,
        use_bias=False,
        kernel_initializer=flow.random_uniform_initializer(-0.002, 0.002),
        bias_initializer=False,
        trainable=True,
        name="fc",
    )
    return flow.nn.sparse_softmax_cross_entropy_with_logits(labels, x, name="loss")


@flow.function
def train_job():
    flow.config.train.primary_lr(0.0001)
    flow.config.train.model_update_conf(dict(naive_conf={}))
    labels, images = load()
    loss = net(images, labels)
    flow.losses.add_loss(loss)
    return loss


@flow.function
def eval_job():
    labels, images = load()
    return labels, net(images, labels)


if __name__ == "__main__":
    flow.config.ctrl_port(9788)
    flow.config.default_data_type(flow.float)
    check_point = flow.train.CheckPoint()
    check_point.init()
    for i in range(int(sys.argv[1])):
        print("{} {:.6f}".format(i, train_job().get().mean()))
    labels, loss = eval_job().get()
    print("labels", sorted(labels.tolist()), loss.shape)
