"""What an agent finds out about its node, on this very machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.agent import data_facts, dialling, networks, python_facts
from launcher.agent.dialling import Doors, Target, dial_all, open_doors
from launcher.agent.facts import Questions, facts, leftovers
from launcher.agent.prepare import Unusable
from launcher.agent.wheelhouse import Wheelhouse
from launcher.wire import events
from tests.support.deadline import wait_until
from tests.support.ready_runtime import make_ready_runtime
from tests.support.servers import free_port

SMALL, BIG = 100_000, 3_000_000


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    path = tmp_path / "root" / "runs" / "own-run" / "n1"
    path.mkdir(parents=True)
    return str(path)


def test_a_node_tells_what_it_is(run_dir: str) -> None:
    found = facts(Questions("", [], False, False), run_dir)
    assert found["hostname"] == socket.gethostname()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["memory_bytes"] > found["memory_free_bytes"] > 0
    assert found["home_free_bytes"] > 0
    assert found["oneflow"] is None
    assert found["same"]["libc"]
    events.encode(events.FactsReported(events.pack_json(found)))


def test_addresses_are_those_that_the_kernel_has() -> None:
    for address in networks.addresses():
        with socket.socket() as sock:
            sock.bind((address["address"], 0))
        assert 0 < address["prefix"] <= 32
        assert not address["address"].startswith("127.")


def test_the_runtime_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWLAUNCH_CACHE", str(tmp_path))
    assert python_facts.python_facts("auto")["missing"] is True
    python = make_ready_runtime(tmp_path)
    found = python_facts.python_facts("auto")
    assert found["path"] == str(python)
    assert (found["oneflow"], found["numpy"]) == ("0.9.0+381b12c", "1.26.4")


def test_a_python_without_oneflow_says_why() -> None:
    found = python_facts.python_facts(sys.executable)
    assert "oneflow" in found["error"]
    assert found["path"] == sys.executable
    assert "not an executable" in python_facts.python_facts("/no/such/python")["error"]
    assert "status 1" in python_facts.python_facts("/bin/false")["error"]


def test_leftovers_know_what_lives(run_dir: str) -> None:
    assert leftovers(run_dir) == []
    other = Path(run_dir).parent.parent / "other-run" / "n1"
    other.mkdir(parents=True)
    (Path(run_dir).parent / "n2").mkdir()
    assert leftovers(run_dir) == [{"run": "other-run", "node": "n1", "pid": 0}]
    code = "print('up', flush=True); input()"
    argv = [sys.executable, "-c", code, '{"run_id": "other-run"}']
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, cwd=other, text=True, **pipes) as agent:  # type: ignore[call-overload]
        assert agent.stdout.readline() == "up\n"
        assert leftovers(run_dir)[0]["pid"] == agent.pid
        agent.communicate("\n")


def _hash(path: Path, *, full: bool = False) -> str:
    return str(data_facts.data_facts(str(path), full)["sha256"])


@pytest.mark.parametrize("size", [0, SMALL, BIG])
def test_equal_content_has_an_equal_hash(tmp_path: Path, size: int) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.mkdir()
        (path / "part-0").write_bytes(bytes(size))
    assert _hash(one) == _hash(other)
    assert _hash(one / "part-0") == _hash(other / "part-0")
    assert _hash(one, full=True) == _hash(other, full=True)
    (other / "part-1").touch()
    assert _hash(one) != _hash(other)


def test_samples_see_the_ends_and_a_full_hash_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(BIG))
    before, whole = _hash(path), _hash(path, full=True)
    for offset, is_sampled in ((0, True), (BIG - 1, True), (80_000, False)):
        data = bytearray(BIG)
        data[offset] = 1
        path.write_bytes(data)
        assert (_hash(path) != before) is is_sampled
        assert _hash(path, full=True) != whole


def test_data_that_is_not_there_is_an_error_and_loops_end(tmp_path: Path) -> None:
    assert "No such file" in data_facts.data_facts(str(tmp_path / "no"), False)["error"]
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "loop").symlink_to(tmp_path / "top")
    assert data_facts.data_facts(str(tmp_path / "top"), False)["files"] == 0


def test_what_cannot_be_read_to_an_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    told = data_facts.data_facts(str(tmp_path / "fifo"), full_hash=False)
    assert told["error"] == "it is neither a file nor a directory"
    assert data_facts.data_facts("/dev/zero", full_hash=True)["error"] == told["error"]
    (tmp_path / "part-0").write_bytes(b"x")
    assert data_facts.data_facts(str(tmp_path), full_hash=False)["files"] == 1


@pytest.fixture
def doors() -> Iterator[Doors]:
    opened = Doors([free_port()], 1, "hello n1\n")
    yield opened
    opened.close()


def test_a_door_greets_and_everything_else_is_told_apart(doors: Doors) -> None:
    (port,), (chosen,) = doors.bound, doors.free
    with socket.create_server(("127.0.0.1", 0)) as mute:
        targets = [
            Target("127.0.0.1", port, "hello n1\n"),
            Target("127.0.0.1", chosen, "hello n1\n"),
            Target("127.0.0.1", port, "hello n2\n"),
            Target("127.0.0.1", free_port(), "hello n1\n"),
            Target("127.0.0.1", mute.getsockname()[1], "hello n1\n"),
        ]
        words = dial_all(targets, 0.3)
    assert words == ["ok", "ok", "stranger", "refused", "stranger"]


def test_thousands_of_dials_are_no_trouble(doors: Doors) -> None:
    target = Target("127.0.0.1", doors.bound[0], "hello n1\n")
    assert dial_all([target] * 3000, 5.0) == ["ok"] * 3000


def test_a_door_leaves_its_port_free_at_once(doors: Doors) -> None:
    port = doors.bound[0]
    assert dial_all([Target("127.0.0.1", port, "hello n1\n")] * 50, 5.0) == ["ok"] * 50
    doors2 = Doors([port], 0, "x")
    assert list(doors2.taken) == [port]
    doors2.close()
    doors3 = Doors([], 1, "x")
    chosen = doors3.free[0]
    dial_all([Target("127.0.0.1", chosen, "x")] * 50, 5.0)
    doors3.close()
    # Without SO_REUSEADDR: one connection in TIME_WAIT would be enough to fail.
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", chosen))


def test_a_chosen_port_that_was_lost_meanwhile_is_chosen_anew(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = free_port()
    choices = iter([doors.bound[0], other])
    monkeypatch.setattr(dialling, "choose_free", lambda: next(choices))
    lucky = Doors([], 1, "x")
    try:
        assert (lucky.free, lucky.taken) == ([other], {})
    finally:
        lucky.close()


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_asked_for_no_ports_a_node_lets_go_of_all() -> None:
    def wanted(ports: list[int]) -> events.BindPorts:
        asked = {"ports": ports, "free": not ports, "greeting": "x"}
        return events.BindPorts(events.pack_json(asked))

    none = events.BindPorts(events.pack_json({"ports": [], "free": 0, "greeting": ""}))
    first, answer = open_doors(wanted([]), None)
    (port,) = events.unpack_json(answer.data)["free"]  # type: ignore[union-attr]
    nothing, answer = open_doors(none, first)
    assert nothing is None
    assert events.unpack_json(answer.data) == {"bound": [], "free": [], "taken": {}}  # type: ignore[union-attr]
    again, _ = open_doors(wanted([port]), nothing)
    assert again is not None
    assert again.bound == [port]
    again.close()


def test_doors_hold_no_visitor(doors: Doors) -> None:
    before = _open_files()
    dial_all([Target("127.0.0.1", doors.bound[0], "hello n1\n")] * 100, 5.0)
    wait_until(lambda: _open_files() <= before, "the visitors' end")


def _offer(wheelhouse: Wheelhouse, **sizes: int) -> dict[str, int]:
    offer = events.OfferWheels(events.pack_json([[f"{k}.whl", v] for k, v in sizes.items()]))
    wanted: dict[str, int] = events.unpack_json(wheelhouse.offer(offer).data)
    return wanted


def test_wheels_go_on_where_they_were_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLAUNCH_CACHE", str(tmp_path))
    first = Wheelhouse()
    assert _offer(first, a=4, b=6) == {"a.whl": 0, "b.whl": 0}
    first.put(events.PutWheel("a.whl", 0, b"aaaa"))
    first.put(events.PutWheel("b.whl", 0, b"bbb"))
    first.put(events.PutWheel("../evil.whl", 0, b"x"))
    later = Wheelhouse()
    assert _offer(later, a=4, b=6) == {"b.whl": 3}
    later.put(events.PutWheel("b.whl", 3, b"BBB"))
    assert _offer(Wheelhouse(), a=4, b=6) == {}
    assert {path.name: path.read_bytes() for path in Path(later.directory).iterdir()} == {
        "a.whl": b"aaaa",
        "b.whl": b"bbbBBB",
    }
    with pytest.raises(Unusable, match="the wheels need"):
        _offer(Wheelhouse(), huge=1 << 60)
