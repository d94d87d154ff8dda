"""`--collect`: what a program that knows nothing of flowlaunch leaves comes here."""

from __future__ import annotations

import sys

from tests.support.lab import Factory

JOB = """
import os
os.makedirs("out/deep")
open("out/deep/own", "w").write(os.environ["RANK"])
open("model.bin", "w").write("the same everywhere")
open("unwanted", "w").write("x")
"""


def test_paths_of_the_working_directory_come_from_every_node(lab_of: Factory) -> None:
    lab = lab_of(2)
    lab.manifest(sys.executable, lab.ssh_nodes(), collect=["*.bin"])
    lab.write("job.py", JOB)
    done = lab.flowlaunch("run", "job.py", "--collect", "out")
    assert done.code == 0, done.err
    top = lab.run_dir() / "collected"
    assert [(top / f"n{n}" / "out" / "deep" / "own").read_text() for n in (1, 2)] == ["0", "1"]
    models = [(top / f"n{number}" / "model.bin").stat() for number in (1, 2)]
    assert models[0].st_ino == models[1].st_ino
    assert not list(top.rglob("unwanted"))
    assert "4 collected paths here, verified, in" in done.err
    assert done.err.count("the job wrote 1 file (1 B) that stay there") == 2
    lab.no_survivors()


def test_nothing_to_collect_is_said(lab_of: Factory) -> None:
    lab = lab_of(1)
    lab.manifest(sys.executable, lab.ssh_nodes())
    lab.write("job.py", "print('well')")
    done = lab.flowlaunch("run", "job.py", "--collect", "nothing*")
    assert done.code == 0, done.err
    assert "nothing was there to collect: nothing*" in done.err
