"""A checkpoint on its way to nodes: only what each lacks, and no word of it too many."""

from __future__ import annotations

import hashlib
import json
import queue
from pathlib import Path
from typing import Any

import pytest

from launcher.core.state import NodeFailed
from launcher.errors import StoreError, UsageError
from launcher.run.push import CheckpointPush
from launcher.store.checkpoints import resume_from
from launcher.wire import events


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def publish(directory: Path, contents: dict[str, bytes], step: int = 7) -> Path:
    for path, data in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    files = [{"path": p, "bytes": len(d), "sha256": sha(d)} for p, d in contents.items()]
    (directory / "MANIFEST.json").write_text(json.dumps({"step": step, "files": files}))
    return directory


def make_run(runs: Path, run_id: str, *steps: int, started: float = 1.0) -> Path:
    top = runs / run_id
    for step in steps:
        publish(top / "checkpoints" / f"step-{step:08d}", {"a": b"%d" % step}, step)
    (top / "checkpoints" / ".arriving-step-00000099").mkdir(parents=True)
    (top / "run.json").write_text(json.dumps({"id": run_id, "started": started}))
    return top


class Wire:
    """What was sent to nodes, and what failed."""

    def __init__(self) -> None:
        self.sent: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.failed: queue.Queue[tuple[str, NodeFailed]] = queue.Queue()
        self.push = CheckpointPush(self._send, lambda *told: self.failed.put(told))

    def _send(self, node: str, command: events.Command) -> bool:
        self.sent.put((node, command))
        return True

    def ask(self, node: str, name: str, *hashes: str) -> None:
        wanted = events.CheckpointWanted(name, events.pack_json(hashes))
        self.push.on_wanted(node, wanted)

    def received(self, count: int) -> dict[tuple[str, str], bytes]:
        found: dict[tuple[str, str], bytes] = {}
        for _ in range(count):
            node, piece = self.sent.get(timeout=10)
            known = found.get((node, piece.sha256), b"")
            assert piece.offset == len(known)
            found[node, piece.sha256] = known + piece.data
        assert self.sent.empty()
        return found


def test_each_node_gets_what_it_asks_for(tmp_path: Path) -> None:
    big = bytes(range(256)) * 10_000
    top = publish(tmp_path / "step-00000007", {"big": big, "twin": big, "none": b""})
    wire = Wire()
    offers = {node: wire.push.offer(node, top) for node in ("n1", "n2", "n3")}
    assert offers["n1"].data == (top / "MANIFEST.json").read_bytes()
    wire.ask("n1", "step-00000007", sha(big), sha(b""))
    wire.ask("n2", "step-00000007", sha(b""))
    assert wire.received(5) == {
        ("n1", sha(big)): big,
        ("n1", sha(b"")): b"",
        ("n2", sha(b"")): b"",
    }
    wire.push.close()
    assert wire.failed.empty()


def test_what_nobody_offered_is_not_sent(tmp_path: Path) -> None:
    top = publish(tmp_path / "step-00000007", {"a": b"x"})
    wire = Wire()
    wire.ask("n1", "step-00000007", sha(b"x"))
    wire.push.offer("n1", top)
    wire.ask("n1", "step-00000008", sha(b"x"))
    wire.ask("n1", "step-00000007", sha(b"of another file"))
    wire.push.close()
    assert wire.sent.empty()


def test_a_file_that_went_since_it_was_offered_fails_the_node_by_name(tmp_path: Path) -> None:
    top = publish(tmp_path / "step-00000007", {"a": b"xyz", "b": b"xy"})
    wire = Wire()
    for node, name, harm in (("n1", "a", b"x"), ("n2", "b", None)):
        wire.push.offer(node, top)
        (top / name).unlink()
        if harm is not None:
            (top / name).write_bytes(harm)
        data = b"xyz" if name == "a" else b"xy"
        wire.ask(node, top.name, sha(data))
        failed_node, failure = wire.failed.get(timeout=10)
        assert failed_node == node
        assert str(top / name) in failure.message
        publish(top, {"a": b"xyz", "b": b"xy"})
    wire.push.close()


def test_a_damaged_checkpoint_is_not_offered(tmp_path: Path) -> None:
    top = publish(tmp_path / "step-00000007", {"a": b"xyz"})
    (top / "a").write_bytes(b"xy")
    with pytest.raises(StoreError, match="2 bytes, published were 3"):
        Wire().push.offer("n1", top)
    (top / "MANIFEST.json").write_text("{}")
    with pytest.raises(StoreError, match="no manifest of a checkpoint"):
        Wire().push.offer("n1", top)


def test_resume_takes_the_newest_or_the_named_step(tmp_path: Path) -> None:
    make_run(tmp_path, "lenet-20260102-030405-a1b2", 20, 100, 40)
    assert resume_from(tmp_path, "last").step == 100
    found = resume_from(tmp_path, "lenet@40")
    assert (found.run, found.step) == ("lenet-20260102-030405-a1b2", 40)
    assert Path(found.directory).name == "step-00000040"
    assert Path(found.directory).is_absolute()


def test_resume_takes_a_directory(tmp_path: Path) -> None:
    top = publish(tmp_path / "step-00000007", {"a": b"xyz"})
    assert resume_from(tmp_path / "none", str(top)) == (resume_from(tmp_path / "none", f"{top}/"))
    assert resume_from(tmp_path / "none", str(top)).step == 7


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("last@", "expected RUN or RUN@STEP"),
        ("last@x", "got 'x'"),
        ("last@-1", "expected RUN or RUN@STEP"),
        ("last@30", "no checkpoint of step 30 here; there are 20, 40"),
        ("empty", "no checkpoint of empty-20260102-030405-a1b2 is here"),
        ("nothing", "there is no run 'nothing'"),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, wanted: str, says: str) -> None:
    make_run(tmp_path, "lenet-20260102-030405-a1b2", 20, 40, started=2.0)
    make_run(tmp_path, "empty-20260102-030405-a1b2")
    with pytest.raises(UsageError, match=says):
        resume_from(tmp_path, wanted)
