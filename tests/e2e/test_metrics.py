"""`flowlaunch metrics`: the same reports in every form, ended runs and live ones."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.support.deadline import wait_until
from tests.support.lab import Lab
from tests.support.recorded import RUN_ID, points, record_run


@pytest.fixture
def run(lab: Lab) -> Path:
    reports = list(points(50, ranks=2))
    reports[20]["loss"] = "nan"
    return record_run(lab.top / "runs", reports)


def test_a_table_of_all_metrics(lab: Lab, run: Path) -> None:
    done = lab.flowlaunch("metrics", "last")
    assert done.code == 0
    loss = next(line for line in done.out.splitlines() if line.startswith("loss"))
    assert "50, 1 not finite" in loss
    assert "images/s" in done.out


def test_csv_has_every_report(lab: Lab, run: Path) -> None:
    done = lab.flowlaunch("metrics", RUN_ID[:8], "--csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert len(rows) == 100
    assert [row["loss"] for row in rows if row["step"] == "11" and row["rank"] == "0"] == ["nan"]
    assert rows[1]["loss"] == ""
    assert float(rows[2]["images_per_s"]) == pytest.approx(640, abs=20)


def test_json_is_what_the_file_has(lab: Lab, run: Path) -> None:
    done = lab.flowlaunch("metrics", "last", "--json", "--rank", "1")
    kept = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in done.out.splitlines()] == [
        line for line in kept if line["rank"] == 1
    ]


def test_a_plot_has_curves_and_axes(lab: Lab, run: Path) -> None:
    done = lab.flowlaunch("metrics", "last", "--plot")
    assert done.code == 0
    assert f"loss of rank 0, {RUN_ID}; nan first at step 11" in done.out
    assert "┤" in done.out and "▀" in done.out
    assert "\x1b" not in done.out


def _records(path: Path) -> list[bytes]:
    """Reads an event file as TensorBoard does: lengths and bodies, each with its checksum."""
    from tensorboardX.crc32c import crc32c

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    data, found = path.read_bytes(), []
    while data:
        size, crc = struct.unpack("<QI", data[:12])
        assert crc == masked(data[:8])
        body, (crc,) = data[12 : 12 + size], struct.unpack("<I", data[12 + size : 16 + size])
        assert crc == masked(body)
        found.append(body)
        data = data[16 + size :]
    return found


def _scalars(top: Path) -> list[tuple[str, int, float, float]]:
    from tensorboardX.proto.event_pb2 import Event

    (path,) = top.glob("rank-0/events.out.tfevents.*")
    events = [Event.FromString(record) for record in _records(path)]
    assert events[0].file_version == "brain.Event:2"
    return [
        (value.tag, event.step, value.simple_value, event.wall_time)
        for event in events
        for value in event.summary.value
    ]


def test_event_files_for_tensorboard(lab: Lab, run: Path) -> None:
    for _ in range(2):  # a second call replaces what the first one wrote
        done = lab.flowlaunch("metrics", "last", "--tensorboard", "tb")
        assert done.code == 0
        assert f"tensorboard --logdir tb/{RUN_ID}" in done.err
    scalars = _scalars(lab.top / "tb" / RUN_ID)
    losses = [(step, value) for tag, step, value, _ in scalars if tag == "loss"]
    assert [step for step, _ in losses] == list(range(1, 51))
    assert math.isnan(losses[10][1])
    kept: list[dict[str, Any]] = list(points(50))
    assert losses[0][1] == pytest.approx(kept[0]["loss"])
    assert scalars[0][3] == kept[0]["time"]


def test_without_the_writer_it_says_what_to_install(lab: Lab, run: Path) -> None:
    lab.write("tensorboardX.py", "raise ImportError\n")
    done = lab.flowlaunch("metrics", "last", "--tensorboard", "tb")
    assert done.code == 64
    assert "tensorboardX, which is not installed" in done.err
    assert "pip install 'flowlaunch[tensorboard]'" in done.err


@pytest.mark.parametrize(
    "words", [("--csv", "--json"), ("--rank", "x"), ("--plot", "--tensorboard", "tb")]
)
def test_words_that_make_no_sense(lab: Lab, run: Path, words: tuple[str, ...]) -> None:
    assert lab.flowlaunch("metrics", "last", *words).code == 64


def test_a_run_that_reported_nothing(lab: Lab) -> None:
    record_run(lab.top / "runs")
    for form in ((), ("--plot",)):
        done = lab.flowlaunch("metrics", "last", *form)
        assert (done.code, done.err) == (0, "nothing was reported\n")


def test_a_live_run_is_followed_to_its_end(lab: Lab) -> None:
    top = record_run(lab.top / "runs", points(5), state="running")
    process = lab.start("metrics", "last", "-f", "--json")
    assert process.stdout is not None
    seen = [json.loads(process.stdout.readline()) for _ in range(5)]
    with (top / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"time": 9.0, "rank": 0, "step": 6, "loss": 0.5}) + "\n")
    seen.append(json.loads(process.stdout.readline()))
    assert seen[-1]["step"] == 6
    record = json.loads((top / "run.json").read_text())
    fresh = top / "fresh"
    fresh.write_text(json.dumps({**record, "state": "ended"}))
    fresh.replace(top / "run.json")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_nobody_reads_on(lab: Lab) -> None:
    record_run(lab.top / "runs", points(20_000))
    process = lab.start("metrics", "last", "--csv")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert wait_until(lambda: process.poll() is not None, "the end", 30)
    assert process.returncode == 141
