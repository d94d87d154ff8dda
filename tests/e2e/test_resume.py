"""Starting from a checkpoint that is here: it goes to the nodes that lack it, and to no other."""

from __future__ import annotations

import sys

from tests.support.lab import Factory, Lab

# Publishes as a worker does, without OneFlow's second to import.
JOB = """
import os, sys
from launcher import worker
from launcher.worker.checkpoint import verify

w = worker.context()
if w.resume_from:
    print("from step", verify(w.resume_from)["step"])
if w.rank == 0 and len(sys.argv) > 1:
    def write(top):
        for name in "ab":
            with open(os.path.join(top, name), "wb") as file:
                file.write(name.encode() * 3_000_000 + sys.argv[1].encode() * (name == "b"))
    w.save_files(write, int(sys.argv[1]))
"""


def sent_bytes(lab: Lab) -> dict[str, int]:
    """Returns what the newest run sent each node of the checkpoint that it started from."""
    return {
        event["node"]: event["sent_bytes"]
        for event in lab.events()
        if event["event"] == "checkpoint_placed"
    }


def test_a_run_starts_from_another_ones_checkpoint(lab_of: Factory) -> None:
    lab = lab_of(2)
    lab.manifest(sys.executable, lab.ssh_nodes())
    lab.write("job.py", JOB)
    assert lab.flowlaunch("run", "job.py", "--name", "first", "--", "5").code == 0
    first = lab.flowlaunch("run", "job.py", "--resume", "first", "--", "6")
    assert first.code == 0, first.err
    assert sorted(first.out.splitlines()) == ["n1:0 | from step 5", "n2:1 | from step 5"]
    assert sent_bytes(lab) == {"n1": 6_000_001, "n2": 6_000_001}
    # Both have all but one file of the next one, each from what it was sent before.
    second = lab.flowlaunch("run", "job.py", "--resume", "last@6")
    assert second.code == 0, second.err
    assert sorted(second.out.splitlines()) == ["n1:0 | from step 6", "n2:1 | from step 6"]
    assert sent_bytes(lab) == {"n1": 3_000_001, "n2": 3_000_001}
    lab.no_survivors()
