"""Ports: free, taken, by whom."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from launcher.agent import ports
from launcher.wire import events, order
from tests.agent.talk import Node


def test_a_port_that_somebody_listens_on_is_taken_and_its_holder_is_named() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        assert ports.is_listening(port)
        assert not ports.is_free(port)
        name = Path("/proc/self/comm").read_text().strip()
        assert ports.holder(port) == f"{name} (pid {os.getpid()})"
    assert not ports.is_listening(port)
    assert ports.is_free(port)
    assert ports.holder(port) == ""


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::"), (socket.AF_INET6, "::1")],
)
def test_a_listener_on_any_address_takes_the_port(family: int, address: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind((address, 0))
        server.listen()
        assert not ports.is_free(server.getsockname()[1])


def test_a_port_that_is_only_bound_is_taken_too() -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        assert not ports.is_listening(server.getsockname()[1])
        assert not ports.is_free(server.getsockname()[1])


def test_a_connection_that_was_just_closed_does_not_take_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        visitor, _ = server.accept()
        visitor.close()
        client.close()
    assert ports.is_free(port)


def test_a_chosen_port_is_free_and_out_of_the_way_of_outgoing_connections() -> None:
    chosen = {ports.choose_free() for _ in range(5)}
    assert all(ports.FIRST_PORT <= port < ports.LAST_PORT for port in chosen)
    assert len(chosen) > 1


def test_a_taken_ctrl_port_is_an_error_that_names_its_holder(node: Node) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        talk = node.talk()
        talk.hello()
        ordered = node.ordered({"job.py": ""}, ctrl_port=port)
        talk.send(events.PrepareRun(order.pack(ordered.node)))
        for sha256, data in ordered.contents.items():
            talk.send(events.PutFile(sha256, 0, len(data), data))
        unusable = talk.expect(events.NodeUnusable)
    assert unusable.problem == "port_taken"
    assert f"ctrl_port {port} is taken by " in unusable.message
    assert f"(pid {os.getpid()})" in unusable.message
    assert "ctrl_port: auto" in unusable.hint
