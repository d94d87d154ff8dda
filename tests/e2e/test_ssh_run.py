"""Real workers on real hosts: sshd in network namespaces, OneFlow across them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lab import Factory

SUM = """
import os
import oneflow as flow
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
placement = flow.placement("cpu", list(range(world)))
parts = flow.tensor([float(rank + 1)]).to_global(placement=placement, sbp=flow.sbp.partial_sum)
total = parts.to_global(sbp=flow.sbp.broadcast).to_local().numpy()[0]
print("sum %g of %d on %s" % (total, world, os.environ["FLOWLAUNCH_NODE"]))
"""


@pytest.mark.oneflow
@pytest.mark.parametrize("slots", [(1, 1), (2, 1), (1, 1, 1)])
def test_workers_on_several_hosts_compute_together(
    lab_of: Factory, runtime_python: Path, slots: tuple[int, ...]
) -> None:
    lab = lab_of(len(slots))
    lab.manifest(runtime_python, lab.ssh_nodes(slots))
    lab.write("job.py", SUM)
    done = lab.flowlaunch("run", "job.py")
    assert done.code == 0, done.err
    world = sum(slots)
    expected = world * (world + 1) // 2
    for host in lab.hosts:
        assert f"sum {expected} of {world} on {host.name}" in done.out
    lab.no_survivors()


def test_what_the_job_wrote_beside_itself_is_kept_and_named(
    lab_of: Factory, runtime_python: Path
) -> None:
    lab = lab_of(2)
    lab.manifest(runtime_python, lab.ssh_nodes())
    lab.write(
        "job.py", "import os\nif os.environ['RANK'] == '1': open('model.bin', 'w').write('x')"
    )
    done = lab.flowlaunch("run", "job.py")
    assert done.code == 0, done.err
    first, second = (host.home / ".flowlaunch" / "runs" for host in lab.hosts)
    assert not list(first.iterdir())
    [kept] = second.rglob("model.bin")
    assert f"n2: the job wrote 1 file (1 B) that stay there, in {kept.parent}" in done.err
    assert [path.name for path in kept.parent.parent.iterdir()] == ["work"]
