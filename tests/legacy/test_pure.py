"""What needs no OneFlow: shapes, the launch, the hook's arguments, the files of a checkpoint."""

from __future__ import annotations

import ast
import doctest
import os
from pathlib import Path

import numpy as np
import pytest

from launcher.legacy import hook, initializers, launch, shapes, snapshot
from launcher.legacy.unsupported import LegacyError, not_covered, refuse
from tests.jobs.workers import ROOT, run_well

ROOM = ROOT / "launcher" / "legacy"


@pytest.mark.parametrize("module", [shapes, launch])
def test_examples(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.oneflow
@pytest.mark.parametrize("name", ["placement", "optimizers"])
def test_examples_with_oneflow(tmp_path: Path, name: str) -> None:
    code = f"import doctest; import launcher.legacy.{name} as m; print(doctest.testmod(m))"
    assert "failed=0, attempted=" in run_well(tmp_path, "-c", code)


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_the_room_keeps_to_the_syntax_of_python_3_7(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 7))


def test_a_launch_is_read_whole() -> None:
    read = launch.read_launch(
        {
            "RANK": "3", "WORLD_SIZE": "4", "FLOWLAUNCH_NODE_RANK": "1", "MASTER_PORT": "12138",
            "FLOWLAUNCH_MACHINES": '[{"addr": "10.0.0.1"}, {"addr": "10.0.0.2"}]',
            "FLOWLAUNCH_ATTEMPT": "1", "FLOWLAUNCH_LEGACY_PLACEMENT": "all",
        }
    )  # fmt: skip
    assert read == launch.Launch(3, 4, 1, ("10.0.0.1", "10.0.0.2"), 12138, False, "all")


def test_a_worker_by_hand_is_rank_0() -> None:
    # What importing oneflow leaves in the environment of the only worker.
    assert launch.read_launch({"RANK": "-1"}).rank == 0


def test_a_wrong_placement_is_refused() -> None:
    with pytest.raises(ValueError, match="placement is 'everywhere'"):
        hook.install("everywhere")


def test_the_nearest_way_is_named() -> None:
    assert "oneflow.nn.Conv1d" in str(not_covered("oneflow.layers.conv1d"))
    assert "neither in OneFlow 0.9" in str(not_covered("oneflow.foo"))
    refuse("f", {"x": None})
    with pytest.raises(LegacyError, match="f: the argument x=3 is not covered"):
        refuse("f", {"x": 3})


def test_variables_begin_alike_and_within_two_deviations() -> None:
    def draw(name: str) -> np.ndarray:
        begin = initializers.truncated_normal(0.1)
        return begin(initializers.generator_for(name), (100, 200))

    values = draw("a")
    assert values.dtype == np.float32
    assert np.abs(values).max() <= 0.2 + 1e-6
    # Of a normal distribution cut at two deviations, not clamped there.
    assert values.std() == pytest.approx(0.088, abs=0.001)
    assert (np.abs(values) > 0.1999).mean() < 0.001
    assert np.array_equal(values, draw("a"))
    assert not np.array_equal(values, draw("b"))


def test_glorot_counts_the_window_in_both_layouts() -> None:
    limit = (6 / ((8 + 4) * 9)) ** 0.5
    for data_format, shape in (("NCHW", (8, 4, 3, 3)), ("NHWC", (8, 3, 3, 4))):
        begin = initializers.xavier_uniform_initializer(data_format)
        values = begin(initializers.generator_for("x"), shape)
        assert 0.95 * limit < np.abs(values).max() <= limit


def test_a_snapshot_is_the_old_layout(tmp_path: Path) -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    target = tmp_path / "model"
    snapshot.write_snapshot(str(target), {"a-weight": value})
    assert (target / "a-weight" / "out").read_bytes() == value.tobytes()
    assert (target / "snapshot_done").read_bytes() == b""
    form = {"a-weight": ((2, 3), np.float32)}
    assert np.array_equal(snapshot.read_snapshot(str(target), form, {})["a-weight"], value)


def test_an_empty_directory_may_be_there_a_full_one_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    snapshot.write_snapshot(str(tmp_path / "empty"), {})
    with pytest.raises(LegacyError, match="is there already"):
        snapshot.write_snapshot(str(tmp_path / "empty"), {})


def test_a_snapshot_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[list[str]] = []
    replace = os.replace

    def watched(source: str, target: str) -> None:
        assert not Path(target).exists()
        moved.append(sorted(str(path.relative_to(source)) for path in Path(source).rglob("*")))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    snapshot.write_snapshot(str(tmp_path / "model"), {"a": np.zeros(3)})
    assert moved == [["a", "a/out", "snapshot_done"]]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        snapshot.write_snapshot(str(tmp_path / "model"), {"a": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []
