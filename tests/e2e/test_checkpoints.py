"""`checkpoints`: what a run published is listed, proven, brought, dropped and handed out."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import sys

import pytest

from tests.support.deadline import wait_until
from tests.support.lab import Factory
from tests.support.runtime import oneflow_python

JOB = """
import os, time
from launcher import worker
w = worker.context()
for step in (10, 20) if w.rank == 0 else ():
    def write(top):
        for name in ("shared", "own"):
            with open(os.path.join(top, name), "w") as file:
                file.write(name * 100_000 + str(step) * (name == "own"))
    w.save_files(write, step, loss=1.0 / step)
print("published", flush=True)
time.sleep(float(os.environ["SLEEP"]))
"""

# Each rank holds a third of two tensors; what is asked for under another world size is the whole.
SPLIT_JOB = """
import numpy as np
import oneflow as flow
from launcher import worker

w = worker.context()
whole = np.arange(35, dtype=np.float32).reshape(5, 7)
resumed = w.load_checkpoint()
if resumed is not None:
    same = [(resumed[name].numpy() == whole).all() for name in ("rows", "columns", "last")]
    print(same, resumed["mine"].item(), resumed["sum"].numpy().tolist(), flush=True)
else:
    every = flow.placement("cpu", list(range(w.world_size)))
    last = flow.placement("cpu", [w.world_size - 1])
    def spread(sbp, place=every):
        everywhere = flow.tensor(whole).to_global(placement=every, sbp=flow.sbp.broadcast)
        return everywhere.to_global(placement=place, sbp=sbp)
    state = {
        "rows": spread(flow.sbp.split(0)),
        "columns": spread(flow.sbp.split(1)),
        "last": spread(flow.sbp.broadcast, last),
        "sum": flow.ones(2).to_global(placement=every, sbp=flow.sbp.partial_sum),
        "mine": flow.tensor(float(w.rank + 7)),
    }
    w.save_checkpoint(state, 1, background=True)
    w.save_checkpoint(state, 2)
"""


def test_a_runs_checkpoints_from_its_end_to_their_export(lab_of: Factory) -> None:
    lab = lab_of(1)
    lab.manifest(sys.executable, lab.ssh_nodes())
    lab.write("job.py", JOB)
    assert lab.flowlaunch("run", "job.py", "--env", "SLEEP=0").code == 0
    rows = json.loads(lab.flowlaunch("checkpoints", "list", "last", "--json").out)
    found = [(row["step"], row["bytes"], row["unique_bytes"], row["nodes"]) for row in rows]
    assert found == [(10, 900_002, 900_002, ["n1"]), (20, 900_002, 300_002, ["n1"])]
    assert rows[1]["meta"] == {"loss": 0.05}
    assert lab.flowlaunch("checkpoints", "verify", "last").code == 0
    assert lab.flowlaunch("checkpoints", "export", "last@10", "model").code == 0
    assert sorted(path.name for path in (lab.top / "model").iterdir()) == ["own", "shared"]
    assert lab.flowlaunch("checkpoints", "prune", "last", "--keep", "1").code == 0
    checkpoints = lab.run_dir() / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000020"]
    own = checkpoints / "step-00000020" / "own"
    own.write_bytes(b"x" + own.read_bytes()[1:])
    damaged = lab.flowlaunch("checkpoints", "verify", "last")
    assert damaged.code == 74
    assert "own: its sha256 is not the one that was published" in damaged.err


def test_what_a_killed_launcher_left_on_nodes_is_pulled(lab_of: Factory) -> None:
    lab = lab_of(1)
    lab.manifest(sys.executable, lab.ssh_nodes())
    lab.write("job.py", JOB)
    launcher = lab.start("run", "job.py", "--env", "SLEEP=600")
    lab.wait_event("checkpoint_published")
    launcher.send_signal(signal.SIGKILL)
    launcher.communicate(timeout=30)
    shutil.rmtree(lab.run_dir() / "checkpoints")
    (lab.run_dir() / "checkpoints").mkdir()
    pulled = lab.flowlaunch("checkpoints", "pull", "last")
    assert pulled.code == 0, pulled.err
    assert "checkpoint of step 10 is here" in pulled.err
    assert lab.flowlaunch("checkpoints", "verify", "last").code == 0
    assert lab.flowlaunch("stop", "last", "--grace", "0").code == 0
    lab.no_survivors()


def test_the_manifests_rule_holds_here_and_on_nodes_while_the_run_goes_on(lab_of: Factory) -> None:
    lab = lab_of(1)
    lab.manifest(sys.executable, lab.ssh_nodes(), checkpoints={"keep": 1})
    lab.write("job.py", JOB)
    launcher = lab.start("run", "job.py", "--env", "SLEEP=600", "--collect-rate", "100")
    lab.wait_event("checkpoint_dropped")
    there = lab.hosts[0].home / ".flowlaunch" / "runs" / lab.run_id() / "n1" / "checkpoints"
    wait_until(lambda: len(list(there.iterdir())) == 1, "the node's drop")
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert "1 checkpoint here, verified" in said
    assert [path.name for path in (lab.run_dir() / "checkpoints").iterdir()] == ["step-00000020"]
    lab.no_survivors()


@pytest.mark.oneflow
def test_parts_on_several_nodes_make_one_checkpoint_for_any_world_size(lab_of: Factory) -> None:
    lab = lab_of(2)
    lab.manifest(oneflow_python(), lab.ssh_nodes([1, 2]))
    lab.write("job.py", SPLIT_JOB)
    ran = lab.flowlaunch("run", "job.py")
    assert ran.code == 0, ran.err
    second = lab.run_dir() / "checkpoints" / "step-00000002"
    files = json.loads((second / "MANIFEST.json").read_text())["files"]
    nodes = {file["path"]: file["node"] for file in files}
    parts = [nodes[f"tensor_0/out.part-{rank}"] for rank in range(3)]
    assert [*parts, nodes["tensor_2/out"]] == ["n1", "n2", "n2", "n2"]
    assert lab.flowlaunch("checkpoints", "verify", "last").code == 0
    # A plain directory has no parts: flow.load reads it as it stands.
    assert lab.flowlaunch("checkpoints", "export", "last@1", "plain").code == 0
    whole = struct.pack("<35f", *range(35))
    for number in (0, 1, 2):
        assert (lab.top / "plain" / f"tensor_{number}" / "out").read_bytes() == whole
    assert not list((lab.top / "plain").rglob("*part*"))
    resumed = lab.flowlaunch("run", "job.py", "--resume", "last", "--nodes", "n1")
    assert resumed.code == 0, resumed.err
    assert resumed.out == "n1:0 | [True, True, True] 7.0 [3.0, 3.0]\n"
    lab.no_survivors()
