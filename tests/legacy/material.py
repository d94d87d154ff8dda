"""What the tests feed to scripts: the tutorials' own text, drawn data, record files.

The tutorials, MNIST and the photographs lie in ``../shared`` beside the project where a developer
has them. They are no part of the project: where they are missing, scripts of our own
(``tests/legacy/own``) on drawn data exercise the same API.
"""

from __future__ import annotations

import io
import re
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.jobs import workers
from tests.jobs.workers import Ended, run_job

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
MNIST = SHARED / "data" / "mnist.npz"
PHOTOGRAPHS = SHARED / "data" / "imagenet-sample.tar"
_FENCE = re.compile(r"^```\w*\n(.*?)^```", re.S | re.M)


def tutorial_scripts() -> dict[str, str]:
    """Returns the seven whole scripts of the tutorials by a name of ours.

    The one fix: a parenthesis too many in AlexNet's main loop, as printed.
    """
    if not (SHARED / "tutorials").is_dir():
        pytest.skip("the tutorials are not beside the project; test_own_scripts.py stands in")
    found = {}
    for language in ("en", "zh"):
        scripts = _scripts(f"lenet-mnist.{language}.md")
        for name, script in zip(("train", "eval", "test"), scripts, strict=True):
            found[f"lenet_{name}_{language}.py"] = script
    (alexnet,) = _scripts("alexnet.zh.md")
    assert alexnet.count("range(args.iter_num)):") == 1
    found["alexnet.py"] = alexnet.replace("range(args.iter_num)):", "range(args.iter_num):")
    return found


def _scripts(name: str) -> list[str]:
    text = (SHARED / "tutorials" / name).read_text()
    return [block for block in _FENCE.findall(text) if "import oneflow as flow" in block]


def run_legacy(
    workdir: Path,
    script: Path | str,
    *args: str,
    workers_count: int = 1,
    placement: str = "script",
    limit_s: float = 600.0,
    env: dict[str, str] | None = None,
) -> list[Ended]:
    """Runs a script under the old API on so many workers; returns how each ended, by rank.

    Args:
        workdir: the working directory of all workers.
        script: a file, or the text of one.
        args: the script's.
        workers_count: how many, on loopback.
        placement: "script" or "all".
        limit_s: how long it may take.
        env: more of the environment.
    """
    if isinstance(script, str):
        path = workdir / "script.py"
        path.write_text(script)
        script = path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_LIMIT_S", limit_s)
        return run_job(
            workdir, str(HERE / "runner.py"), placement, str(script), *args,
            workers=workers_count, env=env,
        )  # fmt: skip


def run_legacy_well(workdir: Path, script: Path | str, *args: str, **more: object) -> str:
    """Runs a script that must end well on every rank; returns what rank 0 printed."""
    ended = run_legacy(workdir, script, *args, **more)  # type: ignore[arg-type]
    assert [worker.code for worker in ended] == [0] * len(ended), "\n".join(w.err for w in ended)
    return ended[0].out


def draw_mnist(file: Path, batches: int, test: int = 200) -> None:
    """Writes an mnist.npz whose ten classes are ten blurred patterns under noise."""
    draw = np.random.default_rng(5)
    coarse = draw.random((10, 7, 7)) > 0.5
    patterns = np.kron(coarse, np.ones((4, 4)))

    def images(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        noise = draw.normal(0, 40, (len(labels), 28, 28))
        return np.clip(patterns[labels] * 200 + noise, 0, 255).astype(np.uint8)

    train_labels = draw.integers(0, 10, batches * 20).astype(np.uint8)
    test_labels = draw.integers(0, 10, test).astype(np.uint8)
    np.savez(
        file, x_train=images(train_labels), y_train=train_labels,
        x_test=images(test_labels), y_test=test_labels,
    )  # fmt: skip


def drawn_photographs(count: int) -> list[tuple[bytes, int]]:
    """Returns JPEG files of one colour each, with a label."""
    found = []
    for index in range(count):
        colour = (index * 20 % 256, index * 50 % 256, index * 90 % 256)
        found.append((jpeg(colour), index % 10))
    return found


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (48, 40)) -> bytes:
    """Returns the JPEG file of one colour (red, green, blue)."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def photographs(count: int) -> list[tuple[bytes, int]]:
    """Returns photographs with labels, drawn pictures where there are none."""
    if not PHOTOGRAPHS.is_file():
        return drawn_photographs(count)
    with tarfile.open(PHOTOGRAPHS) as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpg")][:count]
        files = [archive.extractfile(name) for name in names]
        return [(file.read(), index % 1000) for index, file in enumerate(files) if file]


def write_records(
    directory: Path, images: list[tuple[bytes, int]], parts: int, digits: int = 0
) -> None:
    """Writes OFRecord part files, dealt out image by image."""
    directory.mkdir(parents=True)
    frames = [_frame(data, label) for data, label in images]
    for part in range(parts):
        name = f"part-{part:0{digits}d}" if digits else f"part-{part}"
        (directory / name).write_bytes(b"".join(frames[part::parts]))


def _frame(data: bytes, label: int) -> bytes:
    body = b"".join(
        _field(1, _field(1, key.encode()) + _field(2, _field(kind, _field(1, value))))
        for key, kind, value in (("encoded", 1, data), ("class/label", 4, _varint(label)))
    )
    return struct.pack("<q", len(body)) + body


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def floats(lines: Iterable[str]) -> list[float]:
    """Returns the last word of each line, as a number."""
    return [float(line.split()[-1]) for line in lines]
