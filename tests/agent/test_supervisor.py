"""A run on one node, from the first command to the last process."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from typing import Any

import pytest

from launcher.wire import codec, events, order
from tests.agent.talk import Node, Talk, is_alive
from tests.support.deadline import wait_until

HELLO = "print('hello from', __import__('os').environ['RANK'])"
SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(600)"
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP


def test_a_whole_run(node: Node) -> None:
    talk = node.talk()
    ready = talk.hello()
    assert ready.version == events.VERSION
    assert is_alive(ready.pid)
    ordered = node.ordered({"job.py": HELLO + "\nraise SystemExit(int('0'))"}, workers=2)
    prepared = talk.prepare(ordered)
    assert prepared.tree == ordered.node.tree
    assert prepared.ctrl_port > 0
    talk.send(events.StartWorkers(0, prepared.ctrl_port, ""))
    ends = [talk.expect(events.WorkerExited) for _ in range(2)]
    assert sorted((end.rank, end.exit_code, end.signal) for end in ends) == [(0, 0, 0), (1, 0, 0)]
    assert talk.expect(events.WorkersStopped).left == 0
    talk.await_ends((0, 1))
    assert talk.output(1) == b"hello from 1\n"
    assert node.log(0) == b"hello from 0\n"
    talk.end_run()
    assert not node.run_dir.exists()
    wait_until(lambda: not node.survivors(), "the agent's end")
    assert talk.process.wait(5) == 0


BIND = """
import os, socket
with socket.socket() as server:
    server.bind(("0.0.0.0", int(os.environ["MASTER_PORT"])))
print("bound")
"""


def test_ports_that_a_cut_off_launcher_left_open_are_free_for_the_workers(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    ordered = node.ordered({"job.py": BIND})
    port = talk.prepare(ordered).ctrl_port
    doors = events.pack_json({"ports": [port], "free": 0, "greeting": "hello\n"})
    talk.send(events.BindPorts(doors))
    assert events.unpack_json(talk.expect(events.PortsBound).data)["bound"] == [port]
    talk.send(events.StartWorkers(0, port, ""))
    assert talk.expect(events.WorkerExited).exit_code == 0, node.log(0, "stderr")
    talk.await_ends((0,))
    assert talk.output(0) == b"bound\n"
    talk.end_run()


def test_every_byte_comes_as_it_was_written(node: Node) -> None:
    job = (
        "import os, random\n"
        "data = random.Random(7).randbytes(3_000_000) + b'\\xff\\n\\0'\n"
        "os.write(2, b'err\\r')\n"
        "while data: data = data[os.write(1, data[:70_001]):]\n"
    )
    talk = node.started(job)
    talk.expect(events.WorkersStopped)
    talk.await_ends()
    assert talk.output(0) == random.Random(7).randbytes(3_000_000) + b"\xff\n\0"
    assert talk.output(0, "stderr") == b"err\r"


@pytest.mark.parametrize(
    ("job", "code", "number"),
    [
        ("raise SystemExit(3)", 3, 0),
        ("1/0", 1, 0),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", None, signal.SIGKILL),
        ("import os; os.abort()", None, signal.SIGABRT),
        ("import os; os._exit(77)", 77, 0),
    ],
)
def test_how_a_worker_ended(node: Node, job: str, code: int | None, number: int) -> None:
    talk = node.started(job)
    end = talk.expect(events.WorkerExited)
    assert (end.exit_code, end.signal) == (code, number)
    assert abs(end.clock - time.time()) < 30
    talk.expect(events.WorkersStopped)


# Files


def test_what_is_there_already_is_not_wanted_again(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    files: dict[str, str | bytes] = {
        "job.py": HELLO,
        "empty": "",
        "deep/er/data": bytes(3_000_000),
    }
    talk.prepare(node.ordered(files))
    talk.end_run()
    later = Node(node.home)
    try:
        again = later.talk()
        assert again.word == "have"
        again.hello()
        again.send(events.PrepareRun(order.pack(later.ordered({**files, "more": "x"}).node)))
        wanted = events.unpack_json(again.expect(events.FilesWanted).data)
        assert wanted == [file.sha256 for file in later.ordered({"more": "x"}).node.files]
    finally:
        later.close()


def test_a_file_comes_in_pieces(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    ordered = node.ordered({"job.py": HELLO, "data": bytes(range(256)) * 40})
    talk.send(events.PrepareRun(order.pack(ordered.node)))
    for sha256 in events.unpack_json(talk.expect(events.FilesWanted).data):
        data = ordered.contents[sha256]
        for start in range(0, len(data), 1000):
            piece = data[start : start + 1000]
            talk.send(events.PutFile(sha256, start, len(data), piece))
    assert talk.expect(events.NodePrepared).tree == ordered.node.tree
    assert (node.run_dir / "work" / "data").read_bytes() == bytes(range(256)) * 40


def test_a_file_that_is_not_what_it_was_announced_as_is_refused(node: Node) -> None:
    talk = node.talk()
    talk.hello()
    ordered = node.ordered({"job.py": HELLO})
    talk.send(events.PrepareRun(order.pack(ordered.node)))
    (sha256,) = events.unpack_json(talk.expect(events.FilesWanted).data)
    talk.send(events.PutFile(sha256, 0, 5, b"other"))
    assert talk.expect(events.NodeUnusable).problem == "file_differs"
    assert not list(node.root.glob("files/*/*"))


def test_a_kept_file_that_was_damaged_is_not_used_twice(node: Node) -> None:
    """A power cut leaves files of the right size and the wrong bytes."""
    talk = node.talk()
    talk.hello()
    ordered = node.ordered({"job.py": HELLO})
    talk.prepare(ordered)
    talk.end_run()
    (kept,) = node.root.glob("files/*/*")
    kept.write_bytes(bytes(kept.stat().st_size))
    outcomes = []
    for _ in range(2):
        later = Node(node.home)
        try:
            talk = later.talk()
            talk.hello()
            ordered = later.ordered({"job.py": HELLO})
            talk.send(events.PrepareRun(order.pack(ordered.node)))
            for sha256 in events.unpack_json(talk.expect(events.FilesWanted).data):
                data = ordered.contents[sha256]
                talk.send(events.PutFile(sha256, 0, len(data), data))
            _await_answer(talk)
            outcomes.append(bool(talk.all_of(events.NodePrepared)))
        finally:
            later.close()
    assert outcomes[-1], "a damaged file makes the node unusable for ever"


def _await_answer(talk: Talk) -> None:
    deadline = time.monotonic() + 10.0
    kinds = (events.NodePrepared, events.NodeUnusable)
    while not any(isinstance(message, kinds) for message in talk.received):
        assert talk.read(deadline), "no answer"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"python": "/nonexistent/python"}, "no_python"),
        ({"python": "auto"}, "no_runtime"),
        ({"tree": "00" * 32}, "tree_differs"),
    ],
)
def test_what_a_node_lacks_is_said_before_anything_starts(
    node: Node, changes: dict[str, Any], problem: str
) -> None:
    node.env["FLOWLAUNCH_CACHE"] = str(node.home / "cache")
    talk = node.talk()
    talk.hello()
    ordered = node.ordered({"job.py": HELLO}, **changes)
    talk.send(events.PrepareRun(order.pack(ordered.node)))
    for sha256, data in ordered.contents.items():
        talk.send(events.PutFile(sha256, 0, len(data), data))
    unusable = talk.expect(events.NodeUnusable)
    assert unusable.problem == problem
    assert unusable.message


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a/../../outside"])
def test_a_path_that_leads_out_of_the_folder_is_never_written(node: Node, path: str) -> None:
    talk = node.talk()
    talk.hello()
    ordered = node.ordered({path: "x"})
    talk.send(events.PrepareRun(order.pack(ordered.node)))
    for sha256, data in ordered.contents.items():
        talk.send(events.PutFile(sha256, 0, len(data), data))
    talk.read_until_over()
    assert not list(node.home.rglob("outside"))
    assert not talk.all_of(events.NodePrepared)


# Stopping


def test_a_worker_that_heeds_term_ends_at_once(node: Node) -> None:
    talk = node.started(SLEEP)
    talk.wait_output(0, b"up")
    began = time.monotonic()
    talk.send(events.StopWorkers(5.0))
    assert talk.expect(events.WorkerExited).signal == signal.SIGTERM
    talk.expect(events.WorkersStopped)
    assert time.monotonic() - began < 1.5
    talk.await_ends()


def test_a_worker_that_ignores_term_is_killed_after_the_grace(node: Node) -> None:
    talk = node.started(DEAF)
    talk.wait_output(0, b"up")
    began = time.monotonic()
    talk.send(events.StopWorkers(0.7))
    assert talk.expect(events.WorkerExited).signal == signal.SIGKILL
    assert 0.7 <= time.monotonic() - began < 2.7
    assert talk.expect(events.WorkersStopped).left == 0


def test_a_second_stop_cuts_the_grace_short(node: Node) -> None:
    talk = node.started(DEAF)
    talk.wait_output(0, b"up")
    talk.send(events.StopWorkers(60.0), events.StopWorkers(0.0))
    assert talk.expect(events.WorkerExited, limit_s=3.0).signal == signal.SIGKILL


ESCAPED = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.execv(sys.executable, [sys.executable, "-c",
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
            "print('grandchild', __import__('os').getpid(), flush=True); time.sleep(600)"])
    os._exit(0)
os.wait()
print("parent done", flush=True)
"""


@pytest.mark.parametrize("and_then", ["time.sleep(600)", "sys.exit(3)"])
def test_a_grandchild_that_got_away_is_ended_before_the_node_says_so(
    node: Node, and_then: str
) -> None:
    talk = node.started(ESCAPED + and_then)
    talk.wait_output(0, b"grandchild ")
    talk.wait_output(0, b"parent done\n")
    grandchild = int(talk.output(0).partition(b"grandchild ")[2].split()[0])
    assert is_alive(grandchild)
    talk.send(events.StopWorkers(0.3))
    talk.expect(events.WorkersStopped)
    assert not is_alive(grandchild)


def test_workers_that_are_stopped_at_the_gate_end_too(node: Node) -> None:
    talk = node.started("import oneflow", workers=2, files=FAKE_ONEFLOW)
    talk.expect(events.WorkerOutput, rank=1, stream="report")
    talk.send(events.StopWorkers(1.0))
    talk.expect(events.WorkersStopped)


def test_the_end_of_the_run_ends_the_workers_too(node: Node) -> None:
    talk = node.started(SLEEP)
    talk.wait_output(0, b"up")
    talk.end_run()
    assert not node.run_dir.exists()
    wait_until(lambda: not node.survivors(), "the end of all")


def test_a_second_attempt_adds_to_the_logs(node: Node) -> None:
    talk = node.started("import os; print('attempt', os.environ['FLOWLAUNCH_ATTEMPT'])")
    talk.expect(events.WorkersStopped)
    talk.await_ends()
    talk.send(events.StartWorkers(1, 20001, ""))
    assert talk.expect(events.WorkerExited).attempt == 1
    talk.await_ends()
    assert talk.output(0) == b"attempt 0\nattempt 1\n"


# The gate

FAKE_ONEFLOW = {
    "oneflow/__init__.py": (
        "import os, socket, threading\n"
        "if os.environ['RANK'] == '0' and os.environ.get('LISTEN'):\n"
        "    server = socket.create_server(('0.0.0.0', int(os.environ['MASTER_PORT'])))\n"
    )
}
GATED = "print('before', flush=True)\nimport oneflow\nprint('after', flush=True)\n"


def test_ranks_above_0_wait_at_the_import_until_the_gate_opens(node: Node) -> None:
    talk = node.started(GATED, workers=2, files=FAKE_ONEFLOW)
    talk.wait_output(1, b"before\n")
    talk.wait_output(0, b"after\n")
    # Rank 0 has ended, and rank 1 is still where it was.
    talk.expect(events.WorkerExited, rank=0)
    assert talk.output(1) == b"before\n"
    talk.send(events.OpenGate(7))
    talk.send(events.Ping(1.0))
    talk.expect(events.Pong)
    assert talk.output(1) == b"before\n"
    talk.send(events.OpenGate(0))
    talk.wait_output(1, b"after\n")
    talk.expect(events.WorkersStopped)


def test_rank_0_that_listens_opens_the_gate(node: Node) -> None:
    job = GATED + "if __import__('os').environ['RANK'] == '0': __import__('time').sleep(600)"
    talk = node.started(job, workers=2, files=FAKE_ONEFLOW, env={"LISTEN": "1"})
    talk.expect(events.RendezvousListening, attempt=0)
    talk.wait_output(1, b"after\n")


def test_a_program_without_oneflow_is_not_held(node: Node) -> None:
    talk = node.started(HELLO, workers=3)
    talk.expect(events.WorkersStopped)
    talk.await_ends((0, 1, 2))
    assert talk.output(2) == b"hello from 2\n"


# The link

COUNT = """
import os, sys, time
for i in range(40000):
    sys.stdout.write("%d\\n" % i)
    if i % 400 == 0:
        sys.stdout.flush()
        time.sleep(0.005)
"""


def test_a_launcher_that_comes_back_goes_on_at_the_byte_where_it_stopped(node: Node) -> None:
    talk = node.started(COUNT)
    streams = talk.streams
    for _ in range(4):
        talk.wait_more(0)
        offsets = talk.offsets()
        talk.hang_up()
        talk = node.talk("attach")
        talk.streams = streams
        talk.send(events.Hello(events.VERSION, 60.0), events.FollowOutput(offsets))
    talk.await_ends()
    assert talk.output(0) == b"".join(b"%d\n" % i for i in range(40000))


def test_the_newest_launcher_wins(node: Node) -> None:
    first = node.started(SLEEP)
    first.wait_output(0, b"up")
    second = node.talk("attach")
    second.hello()
    first.read_until_over()
    second.send(events.Ping(1.0))
    assert second.expect(events.Pong).sent == 1.0


def test_what_ended_while_nobody_listened_is_told_to_the_next_launcher(node: Node) -> None:
    talk = node.started("import sys\nsys.stdin.read()\nopen('go').read()\nraise SystemExit(3)")
    talk.hang_up()
    wait_until(lambda: b"FileNotFoundError" in node.log(0, "stderr"), "the worker's end")
    later = node.talk("attach")
    later.send(events.Hello(events.VERSION, 60.0), events.FollowOutput(b'{"0":{"stderr":0}}'))
    assert later.expect(events.WorkerExited, limit_s=3.0).exit_code == 1
    later.expect(events.WorkersStopped, limit_s=3.0)


LOUD = """
import sys
while True:
    sys.stdout.write("x" * 10000 + "\\n")
"""


def test_a_stop_that_was_said_just_before_the_link_broke_counts(node: Node) -> None:
    talk = node.started(LOUD)
    talk.wait_more(0)
    talk.send(events.StopWorkers(0.0))
    talk.hang_up()
    worker = talk.all_of(events.WorkerStarted)[0].pid
    wait_until(lambda: not is_alive(worker), "the worker's end", 3.0)


def test_a_launcher_that_does_not_read_does_not_hold_the_agent(node: Node) -> None:
    talk = node.started(LOUD)
    talk.wait_more(0)
    assert talk.process.stdin is not None
    talk.process.stdin.write(b"nonsense\n")
    talk.process.stdin.flush()
    later = node.talk("attach")
    later.hello()
    later.send(events.StopWorkers(0.0))
    later.expect(events.WorkersStopped)


def test_nonsense_ends_the_conversation_and_not_the_workers(node: Node) -> None:
    talk = node.started(SLEEP)
    talk.wait_output(0, b"up")
    assert talk.process.stdin is not None
    talk.process.stdin.write(b"GET / HTTP/1.1\r\n\r\n")
    talk.process.stdin.flush()
    talk.read_until_over()
    later = node.talk("attach")
    later.hello()
    later.send(events.StopWorkers(1.0))
    assert later.expect(events.WorkerExited).signal == signal.SIGTERM


@pytest.mark.parametrize(
    "data",
    [
        events.encode(events.WorkerStarted(0, 0, 1, 1.0, 0, 0)),
        events.encode(events.FollowOutput(b"[]")),
        events.encode(events.FollowOutput(b'{"9":{"stdout":0}}')),
        events.encode(events.FollowOutput(b'{"0":{"stdout":"x"}}')),
        events.encode(events.FollowOutput(b'{"0":{"stdout":-5}}')),
        events.encode(events.FetchFile(1, "step-00000001", "a\0b", 0, 9)),
        events.encode(events.FetchFile(1, "step-00000001", "MANIFEST.json", -1, 9)),
        events.encode(events.PrepareRun(b"{}")),
        codec.encode("start_workers", {"attempt": True, "ctrl_port": 1}),
    ],
    ids=range(9),
)
def test_no_message_whatever_it_says_ends_the_agent(node: Node, data: bytes) -> None:
    talk = node.started(SLEEP)
    talk.wait_output(0, b"up")
    directory = node.run_dir / "checkpoints" / "step-00000001"
    directory.mkdir()
    (directory / "MANIFEST.json").write_text("{}")
    assert talk.process.stdin is not None
    talk.process.stdin.write(data)
    talk.process.stdin.flush()
    agent = talk.all_of(events.AgentReady)[0].pid
    later = node.talk("attach")
    later.hello()
    assert is_alive(agent)
    later.send(events.StopWorkers(1.0))
    assert later.expect(events.WorkerExited).signal == signal.SIGTERM


def test_start_before_prepare_does_not_end_the_agent(node: Node) -> None:
    talk = node.talk()
    ready = talk.hello()
    talk.send(events.StartWorkers(0, 20001, ""))
    later = node.talk("attach")
    assert later.hello().pid == ready.pid


# Leases and deaths


def test_workers_without_a_launcher_end_when_the_lease_is_over(node: Node) -> None:
    talk = node.started(SLEEP, lease_s=0.5)
    talk.wait_output(0, b"up")
    worker = talk.all_of(events.WorkerStarted)[0].pid
    talk.hang_up()
    wait_until(lambda: not is_alive(worker), "the worker's end", 10.0)
    wait_until(lambda: not node.survivors(), "the agent's end")
    assert node.log(0) == b"up\n", "what it wrote is still there"


def test_pings_keep_the_lease(node: Node) -> None:
    talk = node.started(SLEEP, lease_s=0.6)
    talk.wait_output(0, b"up")
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        talk.send(events.Ping(time.time()))
        talk.expect(events.Pong)
    assert not talk.all_of(events.WorkerExited)


def test_a_silent_launcher_loses_the_lease_though_its_link_stands(node: Node) -> None:
    talk = node.started(SLEEP, lease_s=0.5)
    assert talk.expect(events.WorkerExited, limit_s=5.0).signal == signal.SIGTERM
    talk.read_until_over()


def test_the_workers_end_with_the_agent(node: Node) -> None:
    talk = node.started(DEAF, workers=2)
    for rank in range(2):
        talk.wait_output(rank, b"up")
    workers = [started.pid for started in talk.all_of(events.WorkerStarted)]
    os.kill(talk.all_of(events.AgentReady)[0].pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)), "the workers' end")
    talk.read_until_over()
    assert talk.process.wait(5) == 0
    assert node.log(0) == b"up\n"


# Checkpoints

PUBLISH = """
import json, os, time
from launcher import worker
top = os.environ["FLOWLAUNCH_CHECKPOINT_DIR"]
step = os.path.join(top, "step-00000003")
os.makedirs(os.path.join(step, "w"))
open(os.path.join(step, "w", "out"), "wb").write(bytes(range(256)) * 4000)
json.dump({"step": 3}, open(os.path.join(step, "MANIFEST.json"), "w"))
with open(os.environ["FLOWLAUNCH_REPORT"], "a") as report:
    report.write('{"kind": "checkpoint", "step": 3')
    report.flush()
    time.sleep(0.1)
    report.write(', "name": "step-00000003"}\\n')
time.sleep(600)
"""


def test_a_published_checkpoint_is_announced_and_served(node: Node) -> None:
    talk = node.started(PUBLISH)
    published = talk.expect(events.CheckpointPublished)
    assert (published.rank, published.step, published.name) == (0, 3, "step-00000003")
    assert json.loads(published.data) == {"step": 3}
    talk.send(events.FetchFile(5, "step-00000003", "w/out", 1000, 10_000_000))
    end = talk.expect(events.FileEnded, request=5)
    got = b"".join(chunk.data for chunk in talk.all_of(events.FileChunk))
    assert (end.error, end.size) == ("", 256 * 4000 - 1000)
    assert got == (bytes(range(256)) * 4000)[1000:]


@pytest.mark.parametrize(
    ("checkpoint", "path"),
    [
        ("step-00000003", "missing"),
        ("step-00000003", "../../logs/rank-0.stdout.log"),
        ("step-00000003", "/etc/passwd"),
        ("step-00000003", "escape/passwd"),
        ("..", "logs/rank-0.stdout.log"),
        ("step-00000003/..", "x"),
        ("step-00000004", "w/out"),
    ],
)
def test_only_files_of_a_checkpoint_are_served(node: Node, checkpoint: str, path: str) -> None:
    talk = node.started(PUBLISH)
    talk.expect(events.CheckpointPublished)
    (node.run_dir / "checkpoints" / "step-00000003" / "escape").symlink_to("/etc")
    talk.send(events.FetchFile(5, checkpoint, path, 0, 9))
    assert talk.expect(events.FileEnded).error
    assert not talk.all_of(events.FileChunk)


def test_many_files_can_be_asked_for_at_once(node: Node) -> None:
    """flow.save makes a file for each tensor; a launcher asks for all of them."""
    talk = node.started(PUBLISH)
    talk.expect(events.CheckpointPublished)
    top = node.run_dir / "checkpoints" / "step-00000003"
    count = 1500
    for number in range(count):
        (top / f"f{number}").write_bytes(b"x")
    for number in range(count):
        talk.send(events.FetchFile(number, "step-00000003", f"f{number}", 0, 1 << 20))
    ends = [talk.expect(events.FileEnded) for _ in range(count)]
    assert {end.error for end in ends} == {""}
