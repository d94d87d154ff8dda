"""Checkpoints on their way here: proven byte for byte, or not here at all, and never elsewhere."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.collect.checkpoints import (
    CheckpointCollector,
    Dropped,
    NotStored,
    Outcome,
    Stored,
)
from launcher.core.model import CheckpointPolicy
from launcher.core.paths import RunPaths
from launcher.wire import events
from tests.support.leaks import held_now


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(path: str, data: bytes, **changes: object) -> dict[str, object]:
    return {"path": path, "bytes": len(data), "sha256": sha(data), **changes}


def manifest(step: int, *files: object) -> bytes:
    return json.dumps({"step": step, "files": files, "meta": {"lr": 0.1}}).encode()


class Home:
    """A collector, the commands that it sent, and a node that answers them."""

    def __init__(self, top: Path, run: str = "run", **more: Any) -> None:
        self.top = top
        self.paths = RunPaths(top / run)
        Path(self.paths.checkpoints).mkdir(parents=True, exist_ok=True)
        self.sent: list[tuple[str, Any]] = []
        self.collector = CheckpointCollector(
            self.paths, lambda *sent: self.sent.append(sent), **more
        )
        self.outcomes: list[Outcome] = []

    def publish(self, step: int, *files: object, node: str = "n1", rank: int = 0) -> None:
        event = events.CheckpointPublished(rank, step, f"step-{step:08d}", manifest(step, *files))
        self.outcomes += self.collector.on_published(node, event)

    def publish_part(
        self, step: int, rank: int, of: list[int], *files: object, attempt: int = 0
    ) -> None:
        part = {"rank": rank, "of": of, "attempt": attempt}
        data = json.dumps({"step": step, "files": files, "part": part}).encode()
        name = f"step-{step:08d}.part-{rank}.attempt-{attempt}"
        event = events.CheckpointPublished(rank, step, name, data)
        self.outcomes += self.collector.on_published(f"n{rank}", event)

    def chunk(self, request: int, offset: int, data: bytes) -> None:
        self.outcomes += self.collector.on_chunk(events.FileChunk(request, offset, data))

    def end(self, request: int, size: int = 0, error: str = "") -> None:
        self.outcomes += self.collector.on_ended(events.FileEnded(request, size, error))

    def answer(self, contents: Mapping[str, bytes], piece: int = 7) -> None:
        """Sends every piece that is asked for, until nothing more is."""
        while self.sent:
            _, fetch = self.sent.pop(0)
            data = contents[fetch.path][: fetch.offset + fetch.size]
            for start in range(fetch.offset, len(data), piece):
                self.chunk(fetch.request, start, data[start : start + piece])
            self.end(fetch.request, len(data) - fetch.offset)

    @property
    def problem(self) -> str:
        (outcome,) = self.outcomes
        assert isinstance(outcome, NotStored)
        return outcome.problem

    def step(self, step: int) -> Path:
        return Path(self.paths.checkpoint(step))

    def everything(self) -> list[str]:
        """Returns every path below the run's directory and beside it."""
        return sorted(str(path.relative_to(self.top)) for path in self.top.rglob("*"))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.collector.close()


EMPTY = ["run", "run/checkpoints"]


def test_a_checkpoint_is_here_whole_with_its_manifest(home: Home) -> None:
    files = {"w/out": bytes(range(100)), "w/meta": b"m", "empty": b""}
    home.publish(3, *(entry(path, data) for path, data in files.items()))
    assert home.collector.pending == 1
    assert not home.step(3).exists()
    home.answer(files)
    (stored,) = home.outcomes
    assert stored == Stored("n1", 3, 101, 0, home.step(3))
    assert home.collector.pending == 0
    for path, data in files.items():
        assert (home.step(3) / path).read_bytes() == data
    written = json.loads((home.step(3) / "MANIFEST.json").read_text())
    assert written["step"] == 3
    assert written["files"][0] == {**entry("w/out", files["w/out"]), "node": "n1"}
    assert [path.name for path in Path(home.paths.checkpoints).iterdir()] == ["step-00000003"]


def test_equal_files_are_linked_and_cross_the_network_once(home: Home) -> None:
    home.publish(1, entry("a", b"frozen"), entry("b", b"1"))
    home.answer({"a": b"frozen", "b": b"1"})
    home.publish(2, entry("x/a", b"frozen"), entry("b", b"2"), node="n2")
    assert [command.path for _, command in home.sent] == ["b"]
    home.answer({"b": b"2"})
    assert home.outcomes[1] == Stored("n2", 2, 7, 6, home.step(2))
    assert (home.step(2) / "x/a").stat().st_ino == (home.step(1) / "a").stat().st_ino


def test_equal_files_of_one_checkpoint_were_not_here_before(home: Home) -> None:
    home.publish(1, entry("a", b"same"), entry("b", b"same"))
    home.answer({"a": b"same", "b": b"same"})
    assert home.outcomes == [Stored("n1", 1, 8, 0, home.step(1))]


def test_a_file_system_without_links_only_costs_time(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    home.publish(1, entry("a", b"frozen"))
    home.answer({"a": b"frozen"})
    monkeypatch.setattr(os, "link", refuse)
    home.publish(2, entry("a", b"frozen"))
    home.answer({"a": b"frozen"})
    assert home.outcomes[1] == Stored("n1", 2, 6, 0, home.step(2))


def test_a_file_that_was_removed_here_is_fetched_again(home: Home) -> None:
    home.publish(1, entry("a", b"frozen"))
    home.answer({"a": b"frozen"})
    (home.step(1) / "a").unlink()
    home.publish(2, entry("a", b"frozen"))
    home.answer({"a": b"frozen"})
    assert (home.step(2) / "a").read_bytes() == b"frozen"


def test_replicas_of_one_step_are_taken_once(home: Home) -> None:
    home.publish(1, entry("a", b"1"))
    home.publish(1, entry("a", b"1"), node="n2", rank=1)
    home.answer({"a": b"1"})
    home.publish(1, entry("a", b"1"), node="n2", rank=1)
    assert len(home.outcomes) == 1
    assert home.sent == []


def test_a_checkpoint_of_many_files_holds_few_of_them_open(home: Home) -> None:
    """flow.save makes two files for each tensor; a process may often open no more than 1024."""
    files = {f"w{number}/out": b"%d" % number for number in range(300)}
    before = len(held_now().files)
    home.publish(1, *(entry(path, data) for path, data in files.items()))
    assert len(held_now().files) - before < 100
    home.answer(files)
    assert isinstance(home.outcomes[0], Stored)
    assert len(list(home.step(1).iterdir())) == 301


# Several nodes, links that break, what an earlier launcher or run left


def test_another_holder_goes_on_in_the_middle_of_a_file(home: Home) -> None:
    data = os.urandom(5 << 20)
    home.publish(1, entry("a", data))
    home.publish(1, entry("a", data), node="n2", rank=1)
    node, first = home.sent[0]
    assert (node, first.offset) == ("n1", 0)
    home.chunk(first.request, 0, data[:1000])
    home.sent.clear()
    home.outcomes += home.collector.on_node_lost("n1")
    assert home.outcomes == []
    node, second = home.sent[0]
    assert (node, second.offset) == ("n2", 1000)
    # What the first had on its way is of no use any more, and does no harm.
    home.chunk(first.request, 1000, data[1000:2000])
    home.answer({"a": data}, piece=1 << 18)
    assert isinstance(home.outcomes[0], Stored)
    assert (home.step(1) / "a").read_bytes() == data


def test_a_link_that_is_made_anew_goes_on_at_the_byte(home: Home) -> None:
    data = os.urandom(5 << 20)
    home.publish(1, entry("a", data), entry("b", b"1"))
    home.chunk(home.sent[0][1].request, 0, data[:1000])
    home.sent.clear()
    home.collector.on_node_absent("n1")
    assert home.sent == []
    assert home.collector.pending == 1
    home.collector.on_node_present("n1")
    assert next(command.offset for _, command in home.sent if command.path == "a") == 1000
    home.answer({"a": data, "b": b"1"}, piece=1 << 18)
    assert isinstance(home.outcomes[0], Stored)
    assert (home.step(1) / "a").read_bytes() == data


def test_a_node_that_dies_between_the_last_byte_and_the_end_of_a_file_holds_nothing_up(
    home: Home,
) -> None:
    home.publish(1, entry("a", b"12345"))
    home.chunk(home.sent.pop()[1].request, 0, b"12345")
    home.collector.on_node_absent("n1")
    home.collector.on_node_present("n1")
    home.answer({"a": b"12345"})
    assert home.outcomes == [Stored("n1", 1, 5, 0, home.step(1))]
    assert home.collector.pending == 0


def test_files_come_from_the_node_that_is_asked_for_least(home: Home) -> None:
    files = {f"f{number}": os.urandom(2 << 20) for number in range(6)}
    for node in ("n1", "n2", "n3"):
        home.publish(1, *(entry(path, data) for path, data in files.items()), node=node)
    for node in ("n2", "n3"):
        assert any(asked == node for asked, _ in home.sent), home.sent
    home.answer(files, piece=1 << 20)
    assert isinstance(home.outcomes[0], Stored)


def test_a_node_that_lies_is_left_for_an_honest_one(home: Home) -> None:
    home.publish(1, entry("a", b"12345"))
    home.publish(1, entry("a", b"12345"), node="n2")
    _, first = home.sent.pop()
    home.chunk(first.request, 0, b"123456789")
    node, _ = home.sent[-1]
    assert node == "n2"
    home.answer({"a": b"12345"})
    assert isinstance(home.outcomes[0], Stored)


def test_what_a_killed_launcher_had_is_not_fetched_again(home: Home) -> None:
    data = os.urandom(3000)
    home.publish(1, entry("a", data))
    home.chunk(home.sent.pop()[1].request, 0, data[:2000])
    # It is killed here: nothing is closed. Another one comes.
    second = Home(home.top)
    second.publish(1, entry("a", data))
    assert second.sent[0][1].offset == 2000
    second.answer({"a": data})
    assert isinstance(second.outcomes[0], Stored)
    assert (second.step(1) / "a").read_bytes() == data


def test_a_file_that_is_whole_at_once_does_not_stand_for_the_others(home: Home) -> None:
    files = {"a": os.urandom(30), "b": os.urandom(30), "empty": b"", "z": os.urandom(30)}
    home.publish(1, *(entry(path, data) for path, data in files.items()))
    left = Path(home.paths.arriving_files) / f"{sha(files['a'])}-30"
    left.write_bytes(files["a"])
    # It is killed here, with one file whole and not yet in its place. Another one comes.
    second = Home(home.top)
    second.publish(1, *(entry(path, data) for path, data in files.items()))
    assert second.outcomes == []
    assert not second.step(1).exists()
    second.answer(files)
    assert isinstance(second.outcomes[0], Stored)
    for path, data in files.items():
        assert (second.step(1) / path).read_bytes() == data


def test_an_empty_file_does_not_stand_for_the_others(home: Home) -> None:
    home.publish(1, entry("a", b""), entry("b", b"data"))
    assert home.outcomes == []
    home.answer({"b": b"data"})
    assert isinstance(home.outcomes[0], Stored)
    assert (home.step(1) / "b").read_bytes() == b"data"


def test_damage_in_what_a_killed_launcher_had_is_noticed(home: Home) -> None:
    data = os.urandom(3000)
    home.publish(1, entry("a", data))
    home.chunk(home.sent.pop()[1].request, 0, bytes(2000))
    second = Home(home.top)
    second.publish(1, entry("a", data))
    second.answer({"a": data})
    assert isinstance(second.outcomes[0], Stored)
    assert (second.step(1) / "a").read_bytes() == data


def test_files_of_earlier_runs_are_linked_if_they_are_still_whole(tmp_path: Path) -> None:
    earlier = Home(tmp_path)
    earlier.publish(1, entry("a", b"frozen"), entry("b", b"harmed"))
    earlier.answer({"a": b"frozen", "b": b"harmed"})
    (earlier.step(1) / "b").write_bytes(b"HARMED")
    home = Home(tmp_path, "later")
    home.publish(7, entry("x", b"frozen"), entry("y", b"harmed"))
    assert [command.path for _, command in home.sent] == ["y"]
    home.answer({"y": b"harmed"})
    assert home.outcomes == [Stored("n1", 7, 12, 6, home.step(7))]
    assert (home.step(7) / "x").stat().st_ino == (earlier.step(1) / "a").stat().st_ino


def test_a_bounded_rate_is_kept(tmp_path: Path) -> None:
    now = [0.0]
    home = Home(tmp_path, clock=lambda: now[0], bytes_per_s=1 << 20)
    data = os.urandom(20 << 20)
    home.publish(1, entry("a", data))
    while not home.outcomes:
        home.answer({"a": data}, piece=1 << 20)
        now[0] += 0.1
        home.collector.tick()
    assert 17 < now[0] < 22


# Damage


def damaged_then(home: Home, again: bytes) -> None:
    home.publish(1, entry("a", b"right"))
    (_, first) = home.sent.pop()
    home.chunk(first.request, 0, b"wrong")
    home.end(first.request, 5)
    assert home.outcomes == []
    (_, second) = home.sent.pop()
    assert (second.path, second.offset) == ("a", 0)
    home.chunk(second.request, 0, again)
    home.end(second.request, len(again))


def test_a_file_that_arrived_damaged_is_fetched_once_more(home: Home) -> None:
    damaged_then(home, b"right")
    assert isinstance(home.outcomes[0], Stored)
    assert (home.step(1) / "a").read_bytes() == b"right"


def test_a_file_that_arrives_damaged_twice_is_refused(home: Home) -> None:
    damaged_then(home, b"wrung")
    assert home.problem == (
        "n1: checkpoint of step 1: a: its sha256 is not the one that was published"
    )
    assert home.everything() == EMPTY
    assert home.collector.pending == 0


def test_a_file_that_ends_too_early_twice_is_refused(home: Home) -> None:
    damaged_then(home, b"rig")
    assert "a: 3 of 5 bytes came" in home.problem
    assert home.everything() == EMPTY


def test_a_node_that_cannot_send_a_file_says_why(home: Home) -> None:
    home.publish(1, entry("a", b"12345"))
    for _ in range(2):
        _, fetch = home.sent.pop()
        home.end(fetch.request, 0, "step-00000001/a: Permission denied")
    assert "Permission denied" in home.problem


@pytest.mark.parametrize(
    ("offset", "data"), [(1, b"x"), (0, b"123456"), (5, b""), (-1, b"x"), (0, bytes(100_000))]
)
def test_a_piece_from_elsewhere_or_too_long_is_refused(
    home: Home, offset: int, data: bytes
) -> None:
    home.publish(1, entry("a", b"12345"), entry("b", b"12345"))
    _, fetch = home.sent[0]
    home.chunk(fetch.request, offset, data)
    assert "a is not of the size told" in home.problem
    assert home.everything() == EMPTY
    for _, later in home.sent:
        home.chunk(later.request, 0, b"1")
        home.end(later.request, 5)
    assert len(home.outcomes) == 1
    assert home.everything() == EMPTY


def test_pieces_that_nobody_asked_for_mean_nothing(home: Home) -> None:
    home.chunk(99, 0, b"x")
    home.end(99)
    assert home.outcomes == []
    assert home.everything() == EMPTY


def test_a_node_that_is_lost_in_the_middle_leaves_nothing_half(home: Home) -> None:
    home.publish(1, entry("a", b"12345"))
    home.publish(2, entry("a", b"123"), node="n2")
    home.chunk(home.sent[0][1].request, 0, b"123")
    home.outcomes += home.collector.on_node_lost("n1")
    assert "the node was lost" in home.problem
    assert home.collector.pending == 1
    assert not list(Path(home.paths.checkpoints).glob("*00000001*"))


def test_what_is_not_whole_at_the_end_is_removed(home: Home) -> None:
    home.publish(1, entry("a", b"12345"))
    home.collector.close()
    assert home.everything() == EMPTY


# A manifest that lies


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "a/../../outside",
        "/outside",
        "a//b",
        "./a",
        "a/",
        "..",
        "",
        "a\nb",
        "a\0b",
        "a\x1b[2J",
        "a\\..\\b",
        "MANIFEST.json",
        "x" * 256,
        "\ud800",
    ],
)
def test_a_path_that_is_no_plain_one_refuses_the_whole_checkpoint(home: Home, path: str) -> None:
    home.publish(1, entry("fine", b"1"), entry(path, b"x"))
    assert "its manifest is refused" in home.problem
    assert home.sent == []
    assert home.everything() == EMPTY


@pytest.mark.parametrize(
    "files",
    [
        (entry("a", b"1"), entry("a/b", b"1")),
        (entry("a/b", b"1"), entry("a", b"1")),
        (entry("MANIFEST.json/x", b"1"),),
        (entry("/".join(["d" * 200] * 30), b"1"),),
    ],
)
def test_paths_that_cannot_all_be_there_leave_nothing(
    home: Home, files: tuple[dict[str, object], ...]
) -> None:
    home.publish(1, *files)
    home.answer({str(file["path"]): b"1" for file in files})
    assert isinstance(home.outcomes[0], NotStored)
    assert home.everything() == EMPTY
    assert home.collector.pending == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"step":1}',
        b'{"step":1,"files":{}',
        b'{"step":1,"files":7}',
        b'{"step":1,"files":[7]}',
        b'{"step":1,"files":[{}]}',
        b'{"step":2,"files":[]}',
        b'{"step":"x","files":[]}',
        b'{"step":1,"files":[],"meta":3}',
        b'{"error":"No space left on device"}',
        b"[" * 100_000,
        manifest(1, entry("a", b"1", bytes=-1)),
        manifest(1, entry("a", b"1", bytes=True)),
        manifest(1, entry("a", b"1", bytes=1.0)),
        manifest(1, entry("a", b"1", sha256="A" * 64)),
        manifest(1, entry("a", b"1", sha256="a" * 63)),
        manifest(1, entry("a", b"1", sha256="a" * 64 + "\n")),
        manifest(1, entry("a", b"1", sha256=None)),
        manifest(1, {**entry("a", b"1"), "path": 3}),
        manifest(1, entry("a", b"1"), entry("a", b"1")),
    ],
    ids=range(23),
)
def test_a_manifest_that_is_none_is_refused_with_words(home: Home, data: bytes) -> None:
    event = events.CheckpointPublished(0, 1, "step-00000001", data)
    home.outcomes += home.collector.on_published("n1", event)
    assert home.problem.startswith("n1: checkpoint of step 1: its manifest is refused: ")
    assert home.everything() == EMPTY


@pytest.mark.parametrize("step", [-1, -(10**30)])
def test_a_step_below_zero_is_refused(home: Home, step: int) -> None:
    home.publish(step)
    assert "refused" in home.problem
    assert home.everything() == EMPTY


def test_a_step_of_a_hundred_thousand_digits_is_no_crash(home: Home) -> None:
    home.publish(10**3000)
    assert isinstance(home.outcomes[0], NotStored)
    assert home.everything() == EMPTY


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["chunk", "end", "error"]),
            st.integers(0, 5),
            st.integers(-1, 8),
            st.binary(max_size=8),
        ),
        max_size=25,
    )
)
def test_whatever_a_node_sends_only_what_was_published_comes_here(
    tmp_path: Path, moves: list[tuple[str, int, int, bytes]]
) -> None:
    top = tmp_path / "".join(f"{os.urandom(8).hex()}")
    home = Home(top)
    files = {"a": b"12345", "b/c": b"", "d": b"\0\0"}
    home.publish(1, *(entry(path, data) for path, data in files.items()))
    for kind, request, offset, data in moves:
        if kind == "chunk":
            home.chunk(request, offset, data)
        else:
            home.end(request, 0, "broken" if kind == "error" else "")
    home.collector.close()
    left = [path for path in home.everything() if path not in EMPTY]
    if any(isinstance(outcome, Stored) for outcome in home.outcomes):
        assert {path: (home.step(1) / path).read_bytes() for path in files} == files
    else:
        assert left == []


# This machine's disk


@pytest.mark.parametrize("broken", ["write", "fsync", "rename"])
def test_a_disk_that_does_not_take_it_is_a_problem_with_words(
    home: Home, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    home.publish(1, entry("a", b"12345"))
    if broken == "write":
        for fetch in home.collector._fetcher._fetches.values():
            fetch.sink = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    elif broken == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(Path, "rename", refuse)
    home.answer({"a": b"12345"}, piece=5)
    monkeypatch.undo()
    assert "No space left on device" in home.problem
    assert home.everything() == EMPTY


# What the manifest keeps


def test_what_no_rule_keeps_is_dropped_once_a_newer_one_is_here(tmp_path: Path) -> None:
    home = Home(tmp_path, policy=CheckpointPolicy(keep=1, keep_every=10))
    for step in (5, 10, 15):
        home.publish(step, entry("a", b"same"), entry("b", b"%d" % step))
        home.answer({"a": b"same", "b": b"%d" % step})
    there = sorted(path.name for path in Path(home.paths.checkpoints).iterdir())
    assert there == ["step-00000010", "step-00000015"]
    assert [one.step for one in home.outcomes if isinstance(one, Dropped)] == [5]
    assert (home.step(15) / "a").read_bytes() == b"same"


def test_what_was_dropped_is_not_brought_back_by_a_later_launcher(tmp_path: Path) -> None:
    Home(tmp_path)
    (tmp_path / "run" / "events.jsonl").write_text('{"event": "checkpoint_dropped", "step": 5}\n')
    home = Home(tmp_path, policy=CheckpointPolicy(keep=1))
    home.publish(5, entry("a", b"x"))
    assert (home.sent, home.outcomes) == ([], [])


# What --collect names


def settle(home: Home, path: str, *files: object, node: str = "n1") -> None:
    event = events.PathSettled(path, json.dumps({"files": files}).encode())
    home.outcomes += home.collector.on_settled(node, event)


def test_a_collected_path_is_in_its_place_and_the_newest_state_counts(home: Home) -> None:
    for data in (b"old", b"new"):
        settle(home, "out", entry("out/a", data), entry("out/deep/b", b"b"))
        home.answer({"out/a": data, "out/deep/b": b"b"})
        place = home.top / "run" / "collected" / "n1" / "out"
        assert (place / "a").read_bytes() == data
        assert (place / "deep" / "b").read_bytes() == b"b"
    settle(home, "out", entry("out/a", b"new"), entry("out/deep/b", b"b"))
    assert home.sent == []
    assert len(home.outcomes) == 2
    lines = (home.top / "run" / "collected" / "MANIFEST.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["out", "out"]
    assert home.collector.pending == 0


def test_equal_collected_files_are_stored_once(home: Home) -> None:
    for node in ("n1", "n2"):
        settle(home, "model.bin", entry("model.bin", b"same"), node=node)
        home.answer({"model.bin": b"same"})
    first, second = (home.top / "run" / "collected" / node / "model.bin" for node in ("n1", "n2"))
    assert first.stat().st_ino == second.stat().st_ino


def test_a_newer_state_takes_the_place_of_one_on_its_way(home: Home) -> None:
    settle(home, "m", entry("m", b"older"))
    settle(home, "m", entry("m", b"newer"))
    home.answer({"m": b"newer"})
    assert (home.top / "run" / "collected" / "n1" / "m").read_bytes() == b"newer"
    assert len(home.outcomes) == 1
    assert home.collector.pending == 0


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("out", ["elsewhere"]),
        ("out", ["out2/a"]),
        ("out", []),
        ("../out", ["../out"]),
        ("/etc", ["/etc/x"]),
        ("", ["x"]),
    ],
)
def test_a_told_path_has_only_files_of_its_own(home: Home, path: str, files: list[str]) -> None:
    settle(home, path, *(entry(name, b"x") for name in files))
    (outcome,) = home.outcomes
    assert "cannot be collected" in getattr(outcome, "problem", "")
    assert home.everything() == EMPTY


def test_what_cannot_be_collected_says_why(home: Home) -> None:
    event = events.PathSettled("out", b'{"error": "it is torn"}')
    (outcome,) = home.collector.on_settled("n1", event)
    assert getattr(outcome, "problem", "") == "n1: 'out': it cannot be collected: it is torn"


def test_parts_become_one_checkpoint_when_all_are_known(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.publish_part(3, 1, [0, 1], entry("t/out.part-1", b"one"))
    home.publish_part(3, 1, [0, 1], entry("t/out.part-1", b"one"))
    assert home.sent == []
    assert [missing.step for missing in home.collector.incomplete()] == [3]
    home.publish_part(3, 0, [0, 1], entry("t/out.part-0", b"zero"))
    asked = {(node, fetch.checkpoint, fetch.path) for node, fetch in home.sent}
    assert asked == {
        ("n0", "step-00000003.part-0.attempt-0", "t/out.part-0"),
        ("n1", "step-00000003.part-1.attempt-0", "t/out.part-1"),
    }
    home.publish_part(3, 1, [0, 1], entry("t/out.part-1", b"one"))
    home.answer({"t/out.part-0": b"zero", "t/out.part-1": b"one"})
    (stored,) = home.outcomes
    assert isinstance(stored, Stored)
    written = json.loads((stored.directory / "MANIFEST.json").read_text())
    assert [(file["path"], file["node"]) for file in written["files"]] == [
        ("t/out.part-0", "n0"),
        ("t/out.part-1", "n1"),
    ]
    assert home.collector.incomplete() == []


def test_parts_of_two_attempts_do_not_mix(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.publish_part(3, 0, [0, 1], entry("a", b"old"))
    home.publish_part(3, 1, [0, 1], entry("b", b"new"), attempt=1)
    assert home.sent == []
    home.publish_part(3, 0, [0, 1], entry("a", b"new"), attempt=1)
    assert {fetch.checkpoint[-1] for _, fetch in home.sent} == {"1"}
    home.answer({"a": b"new", "b": b"new"})
    assert home.collector.incomplete() == []


def test_parts_that_name_one_path_are_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.publish_part(3, 0, [0, 1], entry("a", b"x"))
    home.publish_part(3, 1, [0, 1], entry("a", b"y"))
    (outcome,) = home.outcomes
    assert isinstance(outcome, NotStored)
    assert "a path in common" in outcome.problem


def test_a_lost_node_with_a_part_loses_the_whole(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for rank in (0, 1):
        home.publish_part(3, rank, [0, 1], entry(f"f{rank}", b"x%d" % rank))
    home.outcomes += home.collector.on_node_lost("n1")
    (outcome,) = home.outcomes
    assert isinstance(outcome, NotStored)
    assert list(Path(home.paths.checkpoints).iterdir()) == []
