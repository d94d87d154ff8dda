"""What workers write, between their node's disk and the launcher."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.agent import holes
from launcher.wire import events
from tests.agent.talk import Node, new_node
from tests.support.deadline import wait_until

QUIET = "import sys, time\nprint('up', flush=True)\nsys.stdin.read()\ntime.sleep(600)\n"
LOUD = """
import time
for number in range(20_000):
    print("line %08d of a worker that has much to say, and says it" % number)
print("all said", flush=True)
time.sleep(600)
"""


def blocks(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_what_the_launcher_has_on_its_disk_goes_and_the_rest_stays_whole(node: Node) -> None:
    talk = node.started(LOUD, max_log_bytes=100_000)
    talk.wait_output(0, b"all said")
    log = node.run_dir / "logs" / "rank-0.stdout.log"
    size = log.stat().st_size
    here = len(talk.output(0))
    assert here == size > 1_000_000
    before = blocks(log)
    talk.send(events.ReleaseOutput(events.pack_json({"0": {"stdout": here}})))
    wait_until(lambda: blocks(log) < before - 900_000, "the disk's return")
    assert log.stat().st_size == size
    talk.send(events.StopWorkers(0.0))
    # The hash over every byte was taken before.
    talk.await_ends()
    talk.end_run()


def test_without_a_bound_everything_stays(node: Node) -> None:
    talk = node.started(LOUD)
    talk.wait_output(0, b"all said")
    log = node.run_dir / "logs" / "rank-0.stdout.log"
    before = blocks(log)
    talk.send(events.ReleaseOutput(events.pack_json({"0": {"stdout": len(talk.output(0))}})))
    talk.send(events.Ping(1.0))
    talk.expect(events.Pong)
    assert blocks(log) == before


def test_a_launcher_that_lost_its_files_gets_what_is_left_and_no_zeros(node: Node) -> None:
    talk = node.started(LOUD, max_log_bytes=1, lease_s=60.0)
    talk.wait_output(0, b"all said")
    whole = talk.output(0)
    talk.send(events.ReleaseOutput(events.pack_json({"0": {"stdout": 500_000}})))
    talk.send(events.Ping(1.0))
    talk.expect(events.Pong)
    talk.hang_up()
    later = node.talk("attach")
    later.hello()
    # Holes are made of whole blocks. The conversation checks that the rest follows at once.
    gone = 500_000 - 500_000 % 4096
    later.streams[0, "stdout"] = bytearray(whole[:gone])
    later.send(events.FollowOutput(b"{}"))
    assert later.expect(events.WorkerOutput, rank=0, stream="stdout").offset == gone
    later.send(events.StopWorkers(0.0))
    later.await_ends()
    later.end_run()


@contextlib.contextmanager
def small_disk(place: Path, size_mb: int) -> Iterator[None]:
    """Mounts a disk of its own there."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "none", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        assert os.environ.get("CI") != "true", f"mount: {done.stderr}"
        pytest.skip("needs the right to mount a file system (CI has it)")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_gets_full_is_told_of_once(tmp_path: Path) -> None:
    job = "import sys\nprint('x' * 40_000_000)\nprint('said', file=sys.stderr)\n" + QUIET
    with small_disk(tmp_path / "home", 100), new_node(tmp_path / "home") as node:
        talk = node.started(job)
        told = talk.expect(events.NodeTroubled)
        assert told.problem == "disk_full"
        assert "MB left" in told.message
        talk.wait_output(0, b"said", "stderr")
        talk.send(events.StopWorkers(0.0))
        talk.await_ends()
        assert len(talk.all_of(events.NodeTroubled)) == 1


def test_a_file_system_without_holes_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher.agent.output import Output

    (tmp_path / "rank-0.stdout.log").write_bytes(b"x" * 10_000)
    output = Output(str(tmp_path), [0], 10)

    def cannot(path: str, end: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(holes, "punch", cannot)
    try:
        output._streams[0, "stdout"].read()
        offsets = {"0": {"stdout": 10_000}}
        problem = output.release(offsets)
        assert problem is not None
        assert problem.strerror == "Operation not supported"
        assert output.release(offsets) is None, "it is said once"
    finally:
        for stream in output._streams.values():
            stream.close()
        for reader in output._reports.values():
            reader.close()
