"""Publishing checkpoints with the real OneFlow: whole or not at all, whatever dies when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from launcher.worker import CheckpointError
from launcher.worker.checkpoint import verify
from tests.support.runtime import oneflow_python

pytestmark = pytest.mark.oneflow

_ROOT = Path(__file__).resolve().parents[2]
_PRELUDE = """
import os, sys
from launcher import worker
import oneflow as flow
w = worker.context()
def state(value):
    return {"model": {"weight": flow.ones(64, 64) * value}, "step": 1, "names": ["a"]}
"""


def _run(directory: Path, code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(oneflow_python()), "-c", _PRELUDE + code],
        env={
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "GLOG_minloglevel": "2",
            "FLOWLAUNCH_CHECKPOINT_DIR": str(directory),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _run_well(directory: Path, code: str, **env: str) -> str:
    done = _run(directory, code, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with step 5 in it, which tests only read."""
    directory = tmp_path_factory.mktemp("published")
    report = directory / "report"
    out = _run_well(
        directory, "print(w.save_checkpoint(state(2), 5, loss=0.5))", FLOWLAUNCH_REPORT=str(report)
    )
    assert out == str(directory / "step-00000005")
    return directory


def test_the_manifest_lists_every_file_with_its_hash(published: Path) -> None:
    path = published / "step-00000005"
    manifest = json.loads((path / "MANIFEST.json").read_text())
    listed = [entry["path"] for entry in manifest["files"]]
    there = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
    assert listed == sorted(set(there) - {"MANIFEST.json"})
    assert (manifest["step"], manifest["meta"]) == (5, {"loss": 0.5})
    assert verify(str(path)) == manifest


def test_publishing_is_reported(published: Path) -> None:
    line = json.loads((published / "report").read_text())
    assert line.pop("time") > 0
    assert line == {"kind": "checkpoint", "step": 5, "name": "step-00000005"}


def test_it_is_loaded_as_it_was_saved(published: Path) -> None:
    code = (
        "s = w.load_checkpoint(); print(s['step'], s['names'], s['model']['weight'].sum().item())"
    )
    resume = str(published / "step-00000005")
    assert _run_well(published, code, FLOWLAUNCH_RESUME_FROM=resume) == "1 ['a'] 8192.0"


def test_the_same_step_again_is_fine_only_with_the_same_content(tmp_path: Path) -> None:
    _run_well(tmp_path, "w.save_checkpoint(state(2), 5)")
    before = (tmp_path / "step-00000005" / "MANIFEST.json").read_bytes()
    # The tensor's directory gets another name here, as in a restarted process.
    again = "w.save_checkpoint(state(1), 4); print(w.save_checkpoint(state(2), 5))"
    assert _run_well(tmp_path, again) == str(tmp_path / "step-00000005")
    done = _run(tmp_path, "w.save_checkpoint(state(3), 5)")
    assert "published already, with other content" in done.stderr
    assert (tmp_path / "step-00000005" / "MANIFEST.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_global_tensors_are_saved_whole_and_beside_local_ones(tmp_path: Path) -> None:
    code = """
place = flow.placement("cpu", [0])
mixed = {"g": flow.ones(6).to_global(placement=place, sbp=flow.sbp.split(0)), "l": flow.ones(3)}
s = w.load_checkpoint(w.save_checkpoint(mixed, 1))
print(s["g"].is_local, s["g"].sum().item(), s["l"].sum().item())
"""
    assert _run_well(tmp_path, code) == "True 6.0 3.0"


def test_the_files_are_those_that_flow_save_writes(tmp_path: Path) -> None:
    code = """
import io, pickle, pickletools
from oneflow import nn
state = {
    "p": nn.Parameter(flow.ones(2, 3)), "half": flow.ones(2).half(), "int": flow.tensor([1, 2]),
    "zero": flow.zeros(0, 3), "none": flow.tensor(1.5), "turned": flow.ones(2, 3).t(),
    "flag": flow.ones(2).to(flow.bool), "twice": None, "list": [flow.ones(1), "text", (1, 2.5)],
}
state["twice"] = state["int"]
ours, theirs = w.save_checkpoint(state, 1), os.environ["FLOWLAUNCH_CHECKPOINT_DIR"] + "/theirs"
flow.save(state, theirs)
folders = []
for top in (ours, theirs):
    names = sorted((name for name in os.listdir(top) if name.startswith("tensor_")),
                   key=lambda name: int(name[7:]))
    folders.append([{file: open(os.path.join(top, name, file), "rb").read()
                     for file in ("meta", "out")} for name in names])
assert folders[0] == folders[1], folders
ops = [[code.name for code, _, _ in pickletools.genops(open(top + "/pickled_data", "rb").read())]
       for top in (ours, theirs)]
assert ops[0] == ops[1]
loaded = flow.load(ours)
assert type(loaded["p"]) is nn.Parameter and loaded["turned"].shape == (3, 2)
assert loaded["twice"] is loaded["int"] and loaded["none"].shape == ()
print(len(folders[0]))
"""
    assert _run_well(tmp_path, code) == "8"


def test_in_the_background_it_saves_what_was_when_it_was_called(tmp_path: Path) -> None:
    code = """
weights = flow.zeros(1000, 1000)
path = w.save_checkpoint({"weights": weights}, 1, background=True)
weights += 1
second = w.save_checkpoint({"weights": weights}, 2, background=True)
assert os.path.isdir(path)
w.save_checkpoint({"weights": weights}, 3)
print([flow.load(one)["weights"].sum().item() for one in (path, second)])
"""
    assert _run_well(tmp_path, code) == "[0.0, 1000000.0]"


def test_a_worker_whose_last_checkpoint_failed_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = _run(tmp_path / "file", "w.save_checkpoint(state(1), 1, background=True); print('end')")
    assert (done.returncode, done.stdout) == (1, "end\n")
    assert "FileExistsError" in done.stderr or "NotADirectoryError" in done.stderr


_KILL_AT = """
from launcher.worker import checkpoint
w.save_checkpoint(state(1), 1)
calls, mine, last = 0, checkpoint.__file__, int(sys.argv[1])
def count(frame, event, arg):
    global calls
    if frame.f_code.co_filename == mine:
        calls += 1
        if calls == last:
            os.kill(os.getpid(), 9)
sys.setprofile(count)
w.save_checkpoint(state(2), 2)
sys.setprofile(None)
print(calls)
"""


def _save_and_die_at(directory: Path, call: int) -> subprocess.CompletedProcess[str]:
    code = _KILL_AT.replace("int(sys.argv[1])", str(call))
    return _run(directory, code)


def test_killed_at_any_call_it_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    calls = int(_save_and_die_at(tmp_path / "whole", 0).stdout)
    assert calls > 60
    published = []
    for number in range(1, calls, calls // 9):
        directory = tmp_path / str(number)
        assert _save_and_die_at(directory, number).returncode == -signal.SIGKILL
        steps = sorted(path.name for path in directory.iterdir() if path.name[0] != ".")
        for step in steps:
            verify(str(directory / step))
        published.append(steps)
    # Some died before the second was published; the first is whole in any case.
    assert ["step-00000001"] in published
    assert all(steps[0] == "step-00000001" for steps in published)


def test_the_next_save_clears_what_the_dead_left_and_not_what_the_living_write(
    tmp_path: Path,
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    of_dead = tmp_path / f".tmp-step-00000001-{dead.pid}"
    of_living = tmp_path / f".tmp-step-00000001-{os.getpid()}"
    for path in (of_dead, of_living):
        path.mkdir()
        (path / "half").write_text("half")
    _run_well(tmp_path, "w.save_checkpoint(state(2), 2)")
    assert not of_dead.exists()
    assert of_living.exists()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, published were"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), "sha256 differs"),
    ],
    ids=["missing", "short", "changed"],
)
def test_a_harmed_file_is_named(tmp_path: Path, harm: object, says: str) -> None:
    _run_well(tmp_path, "w.save_checkpoint(state(2), 2)")
    path = tmp_path / "step-00000002"
    victim = next(file for file in path.rglob("out"))
    harm(victim)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=says) as caught:
        verify(str(path))
    assert str(victim) in str(caught.value)


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (None, "no published checkpoint"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"files": [{"path": "x"}]}', "lacks"),
    ],
)
def test_a_directory_that_is_no_checkpoint_is_told(
    tmp_path: Path, manifest: str | None, says: str
) -> None:
    if manifest is not None:
        (tmp_path / "MANIFEST.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=says):
        verify(str(tmp_path))


def test_a_negative_step_is_refused(tmp_path: Path) -> None:
    assert "cannot be negative" in _run(tmp_path, "w.save_checkpoint(state(1), -1)").stderr


def test_files_of_any_kind_are_published(tmp_path: Path) -> None:
    code = """
def write(top):
    os.mkdir(top + "/deep")
    open(top + "/deep/weights.npz", "w").write("data")
for _ in range(2):
    print(w.save_files(write, 3, loss=0.5))
w.save_files(lambda top: open(top + "/other", "w").close(), 3)
"""
    done = _run(tmp_path, code)
    assert done.stdout.splitlines() == [str(tmp_path / "step-00000003")] * 2
    assert "published already, with other content" in done.stderr
    manifest = verify(str(tmp_path / "step-00000003"))
    assert [entry["path"] for entry in manifest["files"]] == ["deep/weights.npz"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
