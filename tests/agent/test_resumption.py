"""The checkpoint that workers start from: asked for where it is missing, proven in any case."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from launcher.wire import events, order
from tests.agent.talk import Node, Talk

TELL = (
    "import os, pathlib\n"
    "top = pathlib.Path(os.environ['FLOWLAUNCH_RESUME_FROM'])\n"
    "print(sorted((str(p.relative_to(top)), p.stat().st_size) for p in top.rglob('*')"
    " if p.is_file()))\n"
)
CONTENTS = {"fc.weight/out": b"w" * 3_000_000, "pickled_data": b"p", "nothing": b"", "twin": b"p"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest(contents: dict[str, bytes], **changes: object) -> bytes:
    files = [
        {"path": path, "bytes": len(data), "sha256": sha(data), **changes}
        for path, data in contents.items()
    ]
    return json.dumps({"step": 7, "files": files}).encode()


def write(top: Path, contents: dict[str, bytes]) -> None:
    for path, data in contents.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
    (top / "MANIFEST.json").write_bytes(manifest(contents))


def offer(talk: Talk, contents: dict[str, bytes] = CONTENTS) -> None:
    talk.send(events.OfferCheckpoint("step-00000007", manifest(contents)))


def wanted(talk: Talk) -> set[str]:
    return set(events.unpack_json(talk.expect(events.CheckpointWanted).data))


def send_all(talk: Talk, hashes: set[str], piece: int = 1 << 20) -> None:
    by_hash = {sha(data): data for data in CONTENTS.values()}
    for sha256 in sorted(hashes):
        data = by_hash[sha256]
        for start in range(0, max(len(data), 1), piece):
            part = data[start : start + piece]
            talk.send(events.PutCheckpointFile(sha256, start, part))


def test_what_is_missing_is_sent_and_the_worker_finds_it(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    offer(talk)
    ordered = node.ordered({"job.py": TELL})
    talk.send(events.PrepareRun(order.pack(ordered.node)))
    for sha256, data in ordered.contents.items():
        talk.send(events.PutFile(sha256, 0, len(data), data))
    missing = wanted(talk)
    assert missing == {sha(data) for data in CONTENTS.values()}
    assert not talk.all_of(events.NodePrepared)
    send_all(talk, missing)
    placed = talk.expect(events.CheckpointPlaced)
    assert placed == ("step-00000007", "resume/step-00000007", 3_000_001)
    port = talk.expect(events.NodePrepared).ctrl_port
    talk.send(events.StartWorkers(0, port, placed.directory))
    talk.expect(events.WorkersStopped)
    talk.await_ends()
    sizes = {path: len(data) for path, data in CONTENTS.items()}
    sizes["MANIFEST.json"] = len(manifest(CONTENTS))
    assert talk.output(0).decode().strip() == str(sorted(sizes.items()))
    talk.end_run()


def test_what_the_node_published_or_was_sent_before_is_not_asked_for_again(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    # Published by this node: all but one file.
    published = {path: data for path, data in CONTENTS.items() if path != "nothing"}
    write(node.run_dir / "checkpoints" / "step-00000003", published)
    offer(talk)
    missing = wanted(talk)
    assert missing == {sha(b"")}
    send_all(talk, missing)
    assert talk.expect(events.CheckpointPlaced).sent_bytes == 0
    there = node.run_dir / "resume" / "step-00000007"
    assert {path: (there / path).read_bytes() for path in CONTENTS} == CONTENTS
    # The same once more, as after a restart.
    offer(talk)
    talk.expect(events.CheckpointPlaced)
    assert len(talk.all_of(events.CheckpointWanted)) == 1


def test_what_changed_on_the_node_is_asked_for_anew(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    published = node.run_dir / "checkpoints" / "step-00000003"
    write(published, CONTENTS)
    (published / "fc.weight" / "out").write_bytes(b"v" * 3_000_000)
    offer(talk)
    assert wanted(talk) == {sha(CONTENTS["fc.weight/out"])}


def test_other_bytes_than_offered_are_refused(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    offer(talk, {"a": b"good"})
    (sha256,) = wanted(talk)
    talk.send(events.PutCheckpointFile(sha256, 0, b"evil"))
    assert talk.expect(events.NodeUnusable).problem == "checkpoint_differs"
    assert not talk.all_of(events.CheckpointPlaced)


def test_a_later_offer_takes_the_place_of_one_under_way(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    offer(talk)
    missing = wanted(talk)
    offer(talk, {"a": b"p"})
    # The end of the first is of no use, and does no harm.
    send_all(talk, missing - {sha(b"p")})
    assert wanted(talk) == {sha(b"p")}
    send_all(talk, {sha(b"p")})
    talk.expect(events.CheckpointPlaced)
    assert (node.run_dir / "resume" / "step-00000007" / "a").read_bytes() == b"p"


@pytest.mark.parametrize(
    "bad",
    [
        b"nothing",
        b"{}",
        b'{"files": 1}',
        manifest({"../up": b"x"}),
        manifest({"/etc/x": b"x"}),
        manifest({"a/../../b": b"x"}),
        manifest({"a": b"x"}, sha256="../../x"),
    ],
)
def test_nonsense_is_refused_and_leaves_nothing(node: Node, bad: bytes) -> None:
    talk = node.talk()
    talk.hello()
    talk.send(events.OfferCheckpoint("step-00000007", bad))
    assert talk.expect(events.NodeUnusable).problem == "protocol"
    assert not (node.run_dir / "resume").exists()


def test_a_name_that_leads_elsewhere_is_refused(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    talk.send(events.OfferCheckpoint("../work", manifest(CONTENTS)))
    assert "no name of a checkpoint" in talk.expect(events.NodeUnusable).message
