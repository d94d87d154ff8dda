"""OFRecord data of the oldest API: `decode_ofrecord` and what describes its columns.

The reader and the decoders are OneFlow's own, in eager mode: what they give is fed to the job
function like an argument. With several ranks the part files are dealt out to them, and the batch
size is that of all ranks together.
"""

from __future__ import annotations

import os
import typing
from dataclasses import dataclass

import oneflow as flow

from launcher.legacy.blob import Blob, current_trace
from launcher.legacy.mesh import Mesh
from launcher.legacy.unsupported import LegacyError, refuse


class ImageResizePreprocessor(typing.NamedTuple):
    """Resizes each image, in pixels."""

    width: int
    height: int


class NormByChannelPreprocessor(typing.NamedTuple):
    """Subtracts a mean from each channel and divides by a deviation (blue, green, red)."""

    mean_values: typing.Sequence[float]
    std_values: typing.Sequence[float] = (1.0, 1.0, 1.0)
    data_format: str = "channels_last"


class ImageCodec:
    """Encoded images, decoded to (height, width, 3) in the order blue, green, red."""

    def __init__(self, image_preprocessors: typing.Sequence[typing.Any] = ()) -> None:
        self.image_preprocessors = list(image_preprocessors)


class RawCodec:
    """Numbers as they are."""

    def __init__(self, auto_zero_padding: bool = False) -> None:
        self.auto_zero_padding = auto_zero_padding


class BlobConf:
    """One column of the records.

    Attributes:
        name: the feature's key in a record.
        shape: of one record's value; () is one number.
    """

    def __init__(
        self,
        name: str,
        shape: typing.Sequence[int],
        dtype: typing.Any,
        codec: typing.Union[ImageCodec, RawCodec],
        preprocessors: typing.Sequence[NormByChannelPreprocessor] = (),
    ) -> None:
        self.name = name
        self.shape = tuple(int(size) for size in shape)
        self.dtype = dtype
        self.codec = codec
        self.preprocessors = list(preprocessors)


def decode_ofrecord(
    ofrecord_dir: str,
    blobs: typing.Sequence[BlobConf],
    batch_size: int = 1,
    data_part_num: int = 1,
    part_name_prefix: str = "part-",
    part_name_suffix_length: int = -1,
    shuffle: bool = False,
    buffer_size: int = 1024,
    name: typing.Optional[str] = None,
) -> typing.Tuple[Blob, ...]:
    """Reads batches of records, for ever; in the body of a job function.

    Args:
        ofrecord_dir: the directory of the part files.
        blobs: the columns to decode.
        batch_size: records a step, over all ranks.
        data_part_num: how many part files there are.
        part_name_prefix: their names before the number.
        part_name_suffix_length: digits of the number; -1 takes what is there: as few as needed,
            or five.
        shuffle: whether records are drawn from a buffer in a random order.
        buffer_size: records in that buffer.
        name: what errors call it.

    Returns:
        One blob a column, (batch_size, …).
    """
    trace = current_trace("oneflow.data.decode_ofrecord")
    label = name or "decode_ofrecord"
    made = [
        trace.add(Blob((batch_size, *conf.shape), conf.dtype, "{}-{}".format(label, conf.name)))
        for conf in blobs
    ]
    for conf in blobs:
        _check_column(label, conf)
    parts = _Parts(ofrecord_dir, data_part_num, part_name_prefix, part_name_suffix_length)
    buffered = buffer_size if shuffle else 0
    trace.sources.append(RecordSource(label, parts, batch_size, buffered, blobs, made))
    return tuple(made)


@dataclass(frozen=True)
class _Parts:
    directory: str
    count: int
    prefix: str
    digits: int

    def found_digits(self) -> int:
        """Returns the number of digits in the names that are there.

        Raises:
            LegacyError: a part file is missing.
        """
        for digits in [self.digits] if self.digits >= 0 else [-1, 5]:
            names = [self.prefix + str(i).zfill(max(digits, 0)) for i in range(self.count)]
            lost = [n for n in names if not os.path.isfile(os.path.join(self.directory, n))]
            if not lost:
                return digits
        raise LegacyError(
            "oneflow.data.decode_ofrecord: {} has no part file {} (data_part_num={})".format(
                os.path.abspath(self.directory), lost[0], self.count
            )
        )


class RecordSource:
    """A call of `decode_ofrecord` in a job function, not opened yet."""

    def __init__(
        self,
        label: str,
        parts: _Parts,
        batch_size: int,
        buffered: int,
        columns: typing.Sequence[BlobConf],
        blobs: typing.Sequence[Blob],
    ) -> None:
        self.label = label
        self.parts = parts
        self.batch_size = batch_size
        self.buffered = buffered
        self.columns = columns
        self.blobs = blobs

    def open(self, mesh: Mesh) -> RecordReader:
        """Returns what reads, on every rank.

        Raises:
            LegacyError: the parts or the batch cannot be dealt out to the ranks.
        """
        ranks = len(mesh.ranks)
        if self.parts.count < ranks or self.batch_size % ranks:
            raise LegacyError(
                "{}: {} part files and a batch of {} cannot be dealt out to {} workers; use a "
                "number of workers that divides the batch, and at least one part for each".format(
                    self.label, self.parts.count, self.batch_size, ranks
                )
            )
        return RecordReader(self, mesh)


class RecordReader:
    """Reads and decodes one batch at a time."""

    def __init__(self, source: RecordSource, mesh: Mesh) -> None:
        place: typing.Dict[str, typing.Any] = {}
        if mesh.world_size > 1:
            place = {"placement": mesh.placement("cpu"), "sbp": mesh.sbp(source.batch_size)}
        self._reader = flow.nn.OFRecordReader(
            source.parts.directory,
            batch_size=source.batch_size,
            data_part_num=source.parts.count,
            part_name_prefix=source.parts.prefix,
            part_name_suffix_length=source.parts.found_digits(),
            random_shuffle=source.buffered > 0,
            shuffle_buffer_size=max(source.buffered, 1),
            **place,
        )
        self._device = mesh.device
        self._decoders = [
            (blob, _decoder(conf)) for conf, blob in zip(source.columns, source.blobs)
        ]

    def read(self) -> typing.Dict[Blob, typing.Any]:
        """Returns the next batch, by blob, where job functions are computed."""
        records = self._reader()
        return {blob: self._moved(decode(records)) for blob, decode in self._decoders}

    def _moved(self, tensor: typing.Any) -> typing.Any:
        return tensor if self._device == "cpu" else tensor.to(self._device)


def _check_column(label: str, conf: BlobConf) -> None:
    if not isinstance(conf.codec, ImageCodec):
        refuse(label, {"preprocessors of " + conf.name: conf.preprocessors or None})
        return
    sizes = conf.codec.image_preprocessors
    resized = [one for one in sizes if isinstance(one, ImageResizePreprocessor)]
    if len(sizes) != 1 or len(resized) != 1:
        raise LegacyError(
            "{}: column {}: ImageCodec needs one ImageResizePreprocessor and no other, as a "
            "batch holds images of one size".format(label, conf.name)
        )
    if conf.shape != (resized[0].height, resized[0].width, 3):
        raise LegacyError(
            "{}: column {} is declared as {}, but resized to {} x {} pixels of 3 channels".format(
                label, conf.name, conf.shape, resized[0].height, resized[0].width
            )
        )
    if not all(isinstance(one, NormByChannelPreprocessor) for one in conf.preprocessors):
        raise LegacyError(
            "{}: column {}: only NormByChannelPreprocessor is covered".format(label, conf.name)
        )


def _decoder(conf: BlobConf) -> typing.Callable[[typing.Any], typing.Any]:
    if isinstance(conf.codec, ImageCodec):
        return _image_decoder(conf)
    raw = flow.nn.OFRecordRawDecoder(
        conf.name,
        shape=conf.shape or (1,),
        dtype=conf.dtype,
        auto_zero_padding=conf.codec.auto_zero_padding,
    )
    if conf.shape:
        return typing.cast("typing.Callable[[typing.Any], typing.Any]", raw)
    return lambda records: flow.squeeze(raw(records), [1])


def _image_decoder(conf: BlobConf) -> typing.Callable[[typing.Any], typing.Any]:
    # The order of old is blue, green, red; asking the decoder of 0.9 for it aborts the process.
    decode = flow.nn.OFRecordImageDecoder(conf.name, color_space="RGB")
    height, width, _ = conf.shape
    resize = flow.nn.image.Resize(target_size=[width, height])
    norms = [(_row(norm.mean_values), _row(norm.std_values)) for norm in conf.preprocessors]

    def read(records: typing.Any) -> typing.Any:
        images = resize(decode(records))[0]
        images = flow.flip(images.to(conf.dtype), [3])
        for mean, deviation in norms:
            images = (images - _like(mean, images)) / _like(deviation, images)
        return images

    return read


def _row(values: typing.Sequence[float]) -> typing.Any:
    return flow.tensor([float(value) for value in values]).reshape(1, 1, 1, -1)


def _like(row: typing.Any, images: typing.Any) -> typing.Any:
    if not images.is_global:
        return row
    return row.to_global(placement=images.placement, sbp=flow.sbp.broadcast)
