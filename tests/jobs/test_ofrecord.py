"""OFRecord data sets: made, looked into and cut anew; atomic, and honest about broken pictures."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import ofrecord, records
from jobs.command import DataError
from tests.jobs.workers import ROOT, run_well


def _picture(number: int, form: str = "JPEG", mode: str = "RGB", side: int = 32) -> bytes:
    noise = np.random.default_rng(number).integers(0, 255, (side, side + 5, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(data, form)
    return data.getvalue()


def _table(folder: Path, rows: Sequence[tuple[str, object]]) -> Path:
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("label", "file", "note"), *((b, a, "x") for a, b in rows)])
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of ten JPEGs with a table that gives them the labels 0, 100, … 900."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(_picture(number))
    _table(folder, [(f"{number}.jpg", number * 100) for number in range(10)])
    return folder


def _make(images: Path, out: Path, parts: int = 3, *, skip_bad: bool = False) -> int:
    return ofrecord.make(images, images / "labels.csv", parts, out, skip_bad)


def _content(folder: Path) -> list[tuple[bytes, int]]:
    index = records.index(folder)
    return [index.image(number) for number in range(index.count)]


def test_jpegs_come_through_byte_for_byte_over_all_parts(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "set"
    assert _make(images, out) == 10
    assert sorted(path.name for path in out.iterdir()) == ["part-00000", "part-00001", "part-00002"]
    numbers = [0, 3, 6, 9, 1, 4, 7, 2, 5, 8]
    assert _content(out) == [(_picture(number), number * 100) for number in numbers]


def test_other_images_become_jpegs(images: Path, tmp_path: Path) -> None:
    forms = [("a.png", "PNG", "RGBA"), ("b.gif", "GIF", "P"), ("c.bmp", "BMP", "L")]
    for name, form, mode in forms:
        (images / name).write_bytes(_picture(1, form, mode))
    _table(images, [(name, 1) for name, _, _ in forms])
    _make(images, tmp_path / "set", 1)
    for jpeg, _ in _content(tmp_path / "set"):
        with Image.open(io.BytesIO(jpeg)) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (37, 32), "RGB")


def test_class_folders_are_labels_in_order_of_name(tmp_path: Path) -> None:
    for name in ("dog", "ant", "cat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "images" / name / f"{number}.jpg").write_bytes(_picture(number))
    assert ofrecord.make(tmp_path / "images", None, 2, tmp_path / "set", skip_bad=False) == 6
    assert sorted(label for _, label in _content(tmp_path / "set")) == [0, 0, 1, 1, 2, 2]
    classes = (tmp_path / "set" / "classes.csv").read_text().split()
    assert classes == ["label,class", "0,ant", "1,cat", "2,dog"]


_BROKEN = {
    "cut.jpg": _picture(1)[:-40],
    "empty.jpg": b"",
    "text.jpg": b"hello",
    "cut.png": _picture(1, "PNG")[:-90],
}


@pytest.mark.parametrize("name", _BROKEN)
def test_a_broken_picture_is_named_and_nothing_is_left(
    images: Path, tmp_path: Path, name: str
) -> None:
    (images / name).write_bytes(_BROKEN[name])
    _table(images, [("0.jpg", 0), (name, 1), ("1.jpg", 2)])
    with pytest.raises(DataError, match=f"{name}: no whole image; --skip-bad"):
        _make(images, tmp_path / "out" / "set", 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_skip_bad_names_and_leaves_out(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, data in _BROKEN.items():
        (images / name).write_bytes(data)
    names = ["0.jpg", *_BROKEN, "none.jpg", "1.jpg"]
    _table(images, [(name, 7) for name in names])
    assert _make(images, tmp_path / "set", 2, skip_bad=True) == 2
    said = capsys.readouterr().err
    assert all(f"{name}: no whole image" in said for name in _BROKEN)
    assert "none.jpg: no such file" in said


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,class\n0.jpg,1\n", "labels.csv:1: has no column 'label'"),
        ("file,label\n0.jpg,1\n1.jpg,cat\n", "labels.csv:3: label 'cat'"),
        ("file,label\n0.jpg,-1\n", "labels.csv:2: label '-1'"),
        ("file,label\n0.jpg\n", "labels.csv:2: label None"),
        ("file,label\n0.jpg,1\n", "1 usable pictures do not fill 2 parts"),
        ("", "labels.csv:1: has no column"),
    ],
)
def test_a_wrong_table_is_told_with_its_line(
    images: Path, tmp_path: Path, table: str, says: str
) -> None:
    (images / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=says):
        _make(images, tmp_path / "set", 2)
    assert not (tmp_path / "set").exists()


def test_an_existing_folder_is_never_written_into(images: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match="is there already"):
        _make(images, tmp_path / "set")


def test_repart_keeps_every_record_and_what_lies_beside(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    _make(images, out)
    (out / "classes.csv").write_text("label,class\n")
    before = sorted(_content(out))
    for parts in (7, 1, 10):
        assert ofrecord.repart(out, parts) == 10
        assert len(records.find_parts(out)) == parts
        assert sorted(_content(out)) == before
        assert max(len(list(records.scan(p))) for p in records.find_parts(out)) == -(-10 // parts)
    assert (out / "classes.csv").exists()
    with pytest.raises(DataError, match="10 records do not fill 11 parts"):
        ofrecord.repart(out, 11)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "set"]


def test_inspect_says_what_there_is(images: Path, tmp_path: Path) -> None:
    _make(images, tmp_path / "set")
    lines = list(ofrecord.inspect(tmp_path / "set"))
    assert lines[0] == "first image: JPEG 37x32 RGB, label 0"
    assert lines[1].startswith("part-00000: 4 records, ")
    assert lines[-2] == "labels: 0..900, 10 different"
    assert "3 parts, 10 records" in lines[-1]


def test_broken_parts_are_named(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    _make(images, out)
    part = out / "part-00001"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="part-00001: no whole record at byte"):
        records.index(out)
    part.write_bytes(records.frame(b"\xff\xff"))
    with pytest.raises(DataError, match="part-00001: record at byte 8: no OFRecord"):
        list(ofrecord.inspect(out))
    part.write_bytes(records.frame(records.Record().SerializeToString()))
    with pytest.raises(DataError, match="found nothing"):
        list(ofrecord.inspect(out))
    part.unlink()
    with pytest.raises(DataError, match="part-00001 is missing"):
        records.index(out)
    with pytest.raises(DataError, match="no such folder; OFRecord parts are made with"):
        records.index(tmp_path / "none")


def test_more_parts_than_a_process_may_open_at_first(images: Path, tmp_path: Path) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))\n"
        "from jobs import command, ofrecord; command.run(ofrecord.main)"
    )
    rows = [("0.jpg", 1)] * 200
    table = _table(images, rows)
    argv = ["make", "--images", images, "--labels", table, "--parts", "150", tmp_path / "set"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(records.find_parts(tmp_path / "set")) == 150


def test_memory_does_not_grow_with_the_data_set(images: Path, tmp_path: Path) -> None:
    """Peak memory for 400 pictures of 1 MB is that for 40, and some."""
    large = images / "large.jpg"
    large.write_bytes(_picture(1, side=1000))
    assert large.stat().st_size > 600_000
    peaks = []
    for count in (40, 400):
        table = _table(images, [("large.jpg", 1)] * count)
        code = (
            "import resource, sys\nfrom jobs import ofrecord\nofrecord.main(sys.argv[1:])\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        argv = [
            "make",
            "--images",
            images,
            "--labels",
            table,
            "--parts",
            "2",
            tmp_path / str(count),
        ]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, argv)], cwd=ROOT, capture_output=True, check=True
        )
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    assert peaks[1] < peaks[0] + 60e6


def test_the_command_line_ends_with_one_line_and_66(images: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.ofrecord"]
    argv = ["make", "--images", str(images), "--labels", "none.csv", "--parts", "2", "out"]
    done = subprocess.run(
        [*command, *argv], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (66, "error: none.csv: no such file\n")


_READ_WITH_ONEFLOW = """
import sys
import oneflow as flow
reader = flow.nn.OFRecordReader(sys.argv[1], batch_size=10, data_part_num=3,
                                part_name_suffix_length=5, shuffle_after_epoch=False)
record = reader()
label = flow.nn.OFRecordRawDecoder("class/label", shape=(1,), dtype=flow.int32)(record)
image = flow.nn.OFRecordImageDecoder("encoded", color_space="RGB")(record)
image = flow.nn.image.Resize(target_size=[32, 37])(image)[0]
print(label.numpy().ravel().tolist(), image.shape)
"""


@pytest.mark.oneflow
def test_oneflows_own_reader_reads_what_is_made(images: Path, tmp_path: Path) -> None:
    _make(images, tmp_path / "set")
    said = run_well(tmp_path, "-c", _READ_WITH_ONEFLOW, str(tmp_path / "set"))
    labels = [0, 300, 600, 900, 100, 400, 700, 200, 500, 800]
    assert said.strip().startswith(str(labels))
