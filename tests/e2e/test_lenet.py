"""The shipped job on real hosts, its metrics, and its checkpoints here."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.lab import ROOT, Factory, Lab

JOB = str(ROOT / "jobs" / "lenet.py")


def whole(checkpoint: Path) -> bool:
    """Says whether every byte that a checkpoint's manifest lists is there, and nothing else is."""
    manifest = json.loads((checkpoint / "MANIFEST.json").read_bytes())
    listed = {entry["path"]: entry for entry in manifest["files"]}
    there = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*")
             if path.is_file()} - {"MANIFEST.json"}  # fmt: skip
    return there == set(listed) and all(
        hashlib.sha256((checkpoint / path).read_bytes()).hexdigest() == entry["sha256"]
        and (checkpoint / path).stat().st_size == entry["bytes"]
        for path, entry in listed.items()
    )


@pytest.mark.oneflow
def test_lenet_on_two_hosts(lab_of: Factory, runtime_python: Path) -> None:
    lab = lab_of(2)
    lab.manifest(runtime_python, lab.ssh_nodes())
    done = lab.flowlaunch("run", JOB, "--", "--epochs", "2", limit_s=280)
    assert done.code == 0, done.err
    assert "test accuracy" in done.out
    checkpoints = sorted((lab.run_dir() / "checkpoints").iterdir())
    assert len(checkpoints) == 2
    assert all(map(whole, checkpoints))
    lines = (lab.run_dir() / "metrics.jsonl").read_text().splitlines()
    losses = [report["loss"] for report in map(json.loads, lines) if "loss" in report]
    assert losses[-1] < losses[0] / 2
    lab.no_survivors()
    for host in lab.hosts:
        assert not list((host.home / ".flowlaunch" / "runs").iterdir())


@pytest.mark.oneflow
def test_a_dry_run_prints_the_plan_and_takes_a_few_steps(lab: Lab, runtime_python: Path) -> None:
    nodes = [{"name": "gpu[1-4]", "addr": "10.0.0.[1-4]", "slots": 8}]
    lab.manifest(runtime_python, nodes)
    lab.env["FLOWLAUNCH_CACHE"] = str(runtime_python.parents[3])
    done = lab.flowlaunch("run", JOB, "--dry-run")
    assert done.code == 0, done.err
    assert '[{"addr": "10.0.0.1"}, {"addr": "10.0.0.2"}' in done.out
    assert "dry run: one worker on this machine" in done.err
    record = json.loads((lab.run_dir() / "run.json").read_text())
    assert (record["world_size"], record["dry_run"]) == (1, True)


def test_what_is_asked_for_is_what_the_plan_says(lab: Lab, runtime_python: Path) -> None:
    lab.manifest(runtime_python, [{"name": "this", "transport": "local", "slots": 2}])
    lab.write("job.py", "import os; print(os.environ['WORLD_SIZE'], os.environ['SECRET'])")
    lab.write("data.bin", "x")
    lab.write("sub/.gitignore", "*")
    words = ("job.py", "--env", "SECRET=open sesame", "--", "sub")
    planned = json.loads(lab.flowlaunch("plan", "--json", *words).out)
    assert "open sesame" not in json.dumps(planned)
    done = lab.flowlaunch("run", *words)
    assert done.code == 0, done.err
    assert "2 open sesame" in done.out
    kept = lab.run_dir()
    assert planned == json.loads((kept / "plan.json").read_text())
    for path in kept.iterdir():
        if path.is_file():
            assert "open sesame" not in path.read_text()
    found = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
    assert "open sesame" not in found
