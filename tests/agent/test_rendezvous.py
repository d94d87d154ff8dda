"""Looking for rank 0's port: soon, not for ever, and not at any price."""

from __future__ import annotations

import socket

import pytest

from launcher.agent import rendezvous
from launcher.agent.rendezvous import Rendezvous

IMPORTING, JOINED = b'{"kind": "importing"}', b'{"kind": "joined"}'


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(rendezvous.time, "monotonic", lambda: now[0])
    return now


def test_nobody_looks_before_the_import_or_on_another_node(clock: list[float]) -> None:
    seen = Rendezvous()
    assert seen.pause_s == float("inf")
    seen.expect(20001)
    assert seen.pause_s == float("inf")
    seen.expect(0)
    seen.on_report(IMPORTING)
    assert seen.pause_s == float("inf")
    assert not seen.has_begun()


def test_it_is_told_once_that_rank_0_listens(clock: list[float]) -> None:
    seen = Rendezvous()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        seen.expect(server.getsockname()[1])
        seen.on_report(IMPORTING)
        assert not seen.has_begun()
        server.listen()
        assert not seen.has_begun(), "it was looked a moment ago"
        clock[0] += 0.01
        assert seen.has_begun()
        assert not seen.has_begun()
    assert seen.pause_s == float("inf")


def test_the_longer_it_takes_the_less_often_is_looked(clock: list[float]) -> None:
    seen = Rendezvous()
    seen.expect(1)
    seen.on_report(IMPORTING)
    pauses = []
    for _ in range(200):
        clock[0] += seen.pause_s
        assert not seen.has_begun()
        pauses.append(seen.pause_s)
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.01)
    assert pauses[-1] > 0.5


def test_who_has_joined_is_looked_at_once_more(clock: list[float]) -> None:
    """A worker that is alone never listens."""
    seen = Rendezvous()
    seen.expect(1)
    seen.on_report(IMPORTING)
    assert not seen.has_begun()
    seen.on_report(JOINED)
    assert seen.pause_s == 0
    assert not seen.has_begun()
    assert seen.pause_s == float("inf")


def test_an_import_that_is_over_at_once_is_no_secret(clock: list[float]) -> None:
    seen = Rendezvous()
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen.expect(server.getsockname()[1])
        seen.on_report(IMPORTING)
        seen.on_report(JOINED)
        assert seen.has_begun()
