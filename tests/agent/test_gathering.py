"""What a job leaves in its working directory: told when it is quiet and whole, and not before."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from launcher.agent.savings import torn
from launcher.wire import events
from tests.agent.talk import Node, Talk

META = 'open("%s/meta", "w").write("shape {\\n  dim: 2\\n  dim: 3\\n}\\ndata_type: kFloat\\n")'
WRITES = f"""
import os, sys
os.makedirs("saved/t1")
{META % "saved/t1"}
open("saved/t1/out", "wb").write(bytes(24))
open("saved/pickled_data", "w").write("p")
open("job.py", "a").close()
open("unwanted", "w").close()
os.symlink("/etc/passwd", "saved/link")
print("written", flush=True)
"""
ON = "import time\ntime.sleep(600)\n"


def settled(talk: Talk) -> tuple[str, dict[str, str]]:
    """Returns the next path that is told, and its files with their hashes, or its error."""
    event = talk.expect(events.PathSettled)
    told = json.loads(event.data)
    if "error" in told:
        return event.path, {"error": told["error"]}
    return event.path, {file["path"]: file["sha256"] for file in told["files"]}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


SAVED = {
    "saved/pickled_data": sha(b"p"),
    "saved/t1/meta": sha(b"shape {\n  dim: 2\n  dim: 3\n}\ndata_type: kFloat\n"),
    "saved/t1/out": sha(bytes(24)),
}


def test_a_quiet_directory_is_told_while_the_job_goes_on_and_again_when_it_changed(
    node: Node,
) -> None:
    talk = node.started(WRITES + ON, collect=["save*", "*.py"])
    assert settled(talk) == ("saved", SAVED)
    talk.send(events.FetchFile(1, "", "saved/t1/out", 20, 100))
    assert talk.expect(events.FileChunk).data == bytes(4)
    talk.send(events.FetchFile(2, "", "../logs/rank-0.stdout.log", 0, 100))
    assert talk.expect(events.FileEnded, request=2).error
    (node.run_dir / "work" / "saved" / "more").write_text("more")
    assert settled(talk) == ("saved", {**SAVED, "saved/more": sha(b"more")})
    talk.send(events.StopWorkers(0.0))
    talk.expect(events.WorkersStopped)


def test_at_the_end_what_is_whole_is_told_before_the_last_byte(node: Node) -> None:
    talk = node.started(WRITES, collect=["saved", "saved/t1", "nothing"])
    talk.await_ends()
    assert [event.path for event in talk.all_of(events.PathSettled)] == ["saved"]
    talk.end_run()
    ended = talk.all_of(events.RunEnded)[0]
    # The link and the unwanted file are nobody's: they stay.
    assert ended.files == 2


def test_what_was_not_saved_to_its_end_is_named_and_stays(node: Node) -> None:
    job = WRITES.replace('open("saved/pickled_data", "w").write("p")', "")
    talk = node.started(job, collect=["saved"])
    path, told = settled(talk)
    assert (path, list(told)) == ("saved", ["error"])
    assert "has no pickled_data" in told["error"]
    talk.await_ends()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda top: (top / "pickled_data").unlink(), "t was not saved to its end"),
        (lambda top: (top / "w/out").write_bytes(bytes(7)), "w/out has 7 bytes, .* make 8"),
        (lambda top: (top / "w/out").unlink(), "w/out has 0 bytes"),
        (lambda top: None, ""),
        (lambda top: (top / "w/meta").write_text("of something else"), ""),
    ],
)
def test_a_torn_saving_is_known_by_its_shapes(tmp_path: Path, harm: object, says: str) -> None:
    top = tmp_path / "t"
    (top / "w").mkdir(parents=True)
    (top / "w/meta").write_text("shape {\n  dim: 1\n  dim: 2\n}\ndata_type: kFloat\n")
    (top / "w/out").write_bytes(bytes(8))
    (top / "pickled_data").write_text("p")
    harm(top)  # type: ignore[operator]
    paths = [path.relative_to(tmp_path).as_posix() for path in top.rglob("*") if path.is_file()]
    assert re.fullmatch(f"(t/)?{says}.*" if says else "", torn(str(tmp_path), paths))
