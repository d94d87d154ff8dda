"""What is kept here: proven, listed, dropped by rule, handed out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher.core.model import BestPolicy, CheckpointPolicy, Extreme
from launcher.core.paths import RunPaths
from launcher.core.retention import kept_steps, planned, policy_of, policy_to_json
from launcher.errors import StoreError, UsageError
from launcher.store import pruning
from launcher.store.checkpoints import export
from launcher.store.verifying import expected_collected, expected_in, verify


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def publish(top: Path, step: int, contents: Mapping[str, bytes], **meta: object) -> Path:
    directory = top / "checkpoints" / f"step-{step:08d}"
    for path, data in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    files = [{"path": p, "bytes": len(d), "sha256": sha(d)} for p, d in contents.items()]
    manifest = {"step": step, "meta": meta, "files": files}
    (directory / "MANIFEST.json").write_text(json.dumps(manifest))
    return directory


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (CheckpointPolicy(), [5, 10, 15, 20]),
        (CheckpointPolicy(keep=1), [20]),
        (CheckpointPolicy(keep=9), [5, 10, 15, 20]),
        (CheckpointPolicy(keep_every=10), [10, 20]),
        (CheckpointPolicy(keep_every=7), [20]),
        (CheckpointPolicy(keep_best=BestPolicy("loss")), [10, 20]),
        (CheckpointPolicy(keep_best=BestPolicy("loss", Extreme.MAX)), [5, 20]),
        (CheckpointPolicy(2, 5, BestPolicy("loss")), [5, 10, 15, 20]),
    ],
)
def test_a_checkpoint_stays_where_any_rule_keeps_it(
    policy: CheckpointPolicy, kept: list[int]
) -> None:
    values = {5: 3.0, 10: 1.0, 15: float("nan"), 20: 2.0}
    assert sorted(kept_steps([20, 5, 15, 10], policy, values)) == kept


def test_the_best_is_found_by_what_was_saved_or_reported(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        publish(tmp_path, step, {"a": b"x"}, **({"loss": 0.5} if step == 20 else {}))
    lines = [
        {"rank": 0, "step": 9, "loss": 7.0},
        {"rank": 0, "step": 10, "loss": 0.1},
        {"rank": 1, "step": 10, "loss": 0.0},
        {"rank": 0, "step": 28, "loss": 0.9},
    ]
    torn = '{"rank": 0, "step"'
    text = "\n".join([*map(json.dumps, lines), torn])
    (tmp_path / "metrics.jsonl").write_text(text)
    paths = RunPaths(tmp_path)
    going = pruning.superfluous(paths, CheckpointPolicy(keep_best=BestPolicy("loss")))
    assert [path.name for path in going] == ["step-00000020"]
    for directory in going:
        pruning.remove(directory)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-00000010", "step-00000030"]


def test_rules_go_through_a_plan_and_back() -> None:
    policy = CheckpointPolicy(3, 1000, BestPolicy("acc", Extreme.MAX))
    assert planned({"checkpoints": policy_to_json(policy)}) == policy
    with pytest.raises(UsageError, match="nothing says which checkpoints to keep"):
        planned({})
    with pytest.raises(UsageError, match="expected METRIC"):
        policy_of(None, None, "loss:least")


def harm(name: str, directory: Path) -> None:
    victim = directory / "w" / "out"
    if name == "missing":
        victim.unlink()
    elif name == "cut":
        victim.write_bytes(victim.read_bytes()[:-1])
    elif name == "changed":
        victim.write_bytes(b"x" + victim.read_bytes()[1:])
    elif name == "linked":
        victim.rename(directory / "w" / "elsewhere")
        victim.symlink_to("elsewhere")
    elif name == "stranger":
        (directory / "w" / "more").write_text("more")
    else:
        (directory / "MANIFEST.json").write_text("{")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "it is missing"),
        ("cut", "it has 2999999 bytes, published were 3000000"),
        ("changed", "its sha256 is not the one that was published"),
        ("linked", "it is no file"),
        ("stranger", "it is not in the manifest"),
        ("manifest", "malformed"),
    ],
)
def test_every_kind_of_damage_is_found_and_named(tmp_path: Path, name: str, says: str) -> None:
    directory = publish(tmp_path, 5, {"w/out": b"w" * 3_000_000, "pickled_data": b"p"})
    expected, wrong = expected_in(directory)
    assert (verify(expected, lambda count: None), wrong) == ([], [])
    harm(name, directory)
    expected, wrong = expected_in(directory)
    damages = verify(expected, lambda count: None) + wrong
    assert any(says in damage.problem for damage in damages), damages


def test_what_is_shared_is_read_once_and_damaged_everywhere(tmp_path: Path) -> None:
    first = publish(tmp_path, 1, {"a": b"same"})
    second = publish(tmp_path, 2, {"a": b"same"})
    (second / "a").unlink()
    os.link(first / "a", second / "a")
    expected = [*expected_in(first)[0], *expected_in(second)[0]]
    counted: list[int] = []
    assert verify(expected, counted.append) == []
    assert sum(counted) == 8
    (first / "a").write_bytes(b"evil")
    assert [damage.path for damage in verify(expected, counted.append)] == [
        first / "a", second / "a",
    ]  # fmt: skip


def test_collected_files_are_proven_as_they_came_last(tmp_path: Path) -> None:
    top = tmp_path / "collected"
    (top / "n1").mkdir(parents=True)
    (top / "n1" / "m").write_bytes(b"new")
    lines = [
        json.dumps({"node": "n1", "path": "m", "files": [
            {"path": "m", "bytes": 3, "sha256": sha(data)}]})
        for data in (b"old", b"new")
    ]  # fmt: skip
    (top / "MANIFEST.jsonl").write_text("\n".join([*lines, '{"node": "n1", "pa']))
    expected = expected_collected(RunPaths(tmp_path))
    assert [one.path for one in expected] == [top / "n1" / "m"]
    assert verify(expected, lambda count: None) == []


def test_an_export_is_whole_or_not_there(tmp_path: Path) -> None:
    directory = publish(tmp_path, 5, {"w/out": b"weights", "pickled_data": b"p"})
    export(directory, tmp_path / "model")
    there = [str(p.relative_to(tmp_path / "model")) for p in (tmp_path / "model").rglob("*")]
    assert sorted(there) == ["pickled_data", "w", "w/out"]
    with pytest.raises(UsageError, match="is there already"):
        export(directory, tmp_path / "model")
    (directory / "w" / "out").write_bytes(b"WEIGHTS")
    with pytest.raises(StoreError, match="sha256 is not the one"):
        export(directory, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "model"]
