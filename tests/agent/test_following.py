"""The launcher's side of a node, where this machine fails it: files that go, readers that leave."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.model import NodeSpec, TransportKind
from launcher.core.state import LinkLost
from launcher.run.bringup import NodeDriver, first_commands, new_inbox
from launcher.store.job_folder import read_folder
from launcher.transport.local import LocalTransport
from launcher.wire import order
from tests.agent.talk import Node
from tests.support.deadline import wait_until
from tests.support.lab import Lab
from tests.support.processes import processes_with


@pytest.fixture
def transport() -> Iterator[LocalTransport]:
    made = LocalTransport()
    yield made
    made.close()


@pytest.mark.parametrize("change", ["removed", "shorter", "longer", "other"])
def test_a_file_that_changes_while_the_run_starts_ends_the_wait(
    node: Node, transport: LocalTransport, change: str, tmp_path: Path
) -> None:
    top = tmp_path / "folder"
    top.mkdir()
    (top / "job.py").write_text("print('as it was')")
    folder = read_folder(top)
    if change == "removed":
        (top / "job.py").unlink()
    else:
        (top / "job.py").write_text({"shorter": "", "longer": "x" * 50}.get(change, "y" * 18))
    ordered = node.ordered({})
    wanted = order.NodeOrder(**{**ordered.node._asdict(), "files": list(folder.files)})
    spec = NodeSpec("n1", "127.0.0.1", TransportKind.LOCAL, workdir=str(node.root))
    inbox = new_inbox()
    driver = NodeDriver(spec, transport, inbox, first_commands(wanted, 1.0))
    driver.start(node.run_id, folder)
    try:
        seen: list[object] = []
        deadline = time.monotonic() + 10
        while not any(isinstance(event, LinkLost) or "Unusable" in repr(event) for event in seen):
            seen.append(inbox.get(timeout=max(0.01, deadline - time.monotonic()))[1])
    finally:
        driver.close()
        driver.join(5.0)
    assert not driver.is_alive


TALKATIVE = "import time\nfor i in range(3000): print('line', i, flush=True); time.sleep(0.02)\n"


def test_workers_end_when_nobody_reads_any_more(tmp_path: Path) -> None:
    """`flowlaunch run job.py | head -1`."""
    lab = Lab(tmp_path / "work", tmp_path / "person")
    lab.manifest(sys.executable, [{"name": "here", "transport": "local"}])
    lab.write("job.py", TALKATIVE)
    process = lab.start("run", "job.py")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    run_id = lab.run_dir().name
    process.stdout.close()
    process.stderr.close()
    assert process.wait(20) != 0
    # The agent stays until its lease is over: what the workers wrote is still to be had.
    wait_until(lambda: not _workers_of(run_id), "the workers' end", 8.0)
    for line in processes_with(run_id):
        os.kill(int(line.split()[0]), signal.SIGKILL)


def _workers_of(run_id: str) -> list[str]:
    return [line for line in processes_with(run_id) if "bootstrap.py" in line]
