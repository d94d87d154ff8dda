"""Nodes with two networks and firewalls: fixed ports hold, and a closed one is named."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.lab import ROOT, Lab, lab_of_namespaces
from tests.support.netns import NetHost
from tests.support.networks import firewall, second_network

CTRL_PORT, DATA_PORT, SLOTS = 12138, 23400, 2
RUN_PORTS = f"tcp dport {{ {CTRL_PORT}, {DATA_PORT}-{DATA_PORT + 2 * SLOTS - 1} }}"

LENET = str(ROOT / "jobs" / "lenet.py")


@dataclass(frozen=True)
class TwoNetworks:
    """Three nodes: SSH on one network, OneFlow on the other.

    Attributes:
        addrs: what OneFlow is told to use: not the address that a node calls others from.
    """

    lab: Lab
    hosts: list[NetHost]
    addrs: list[str]

    def allow(self, *rules: str, only: int | None = None, verdict: str = "drop") -> None:
        """Sets the firewall of all hosts, or of one; the rules hold for calls to its addr."""
        for number, (host, addr) in enumerate(zip(self.hosts, self.addrs, strict=True)):
            if only is None or only == number:
                own = [f"iifname eth1 ip daddr {addr} {rule}" for rule in rules]
                firewall(host, *own, verdict=verdict)


@pytest.fixture
def nodes(
    tmp_path: Path, runtime_python: Path, netns_hosts: Callable[[int], list[NetHost]]
) -> Iterator[TwoNetworks]:
    hosts = netns_hosts(3)
    with contextlib.ExitStack() as stack:
        addrs = [
            _second_address(host, address)
            for host, address in zip(hosts, stack.enter_context(second_network(hosts)), strict=True)
        ]
        lab = lab_of_namespaces(tmp_path, hosts)
        entries = _entries(hosts, addrs)
        lab.manifest(runtime_python, entries, ctrl_port=CTRL_PORT, data_port=DATA_PORT)
        yield TwoNetworks(lab, hosts, addrs)


def _entries(hosts: list[NetHost], addrs: list[str]) -> list[dict[str, object]]:
    """Returns the manifest's nodes: all but the first are logged in to by way of the first."""
    jump = {"jump": hosts[0].name}
    return [
        {
            "name": host.name,
            "addr": addr,
            "slots": SLOTS,
            "ssh": {"host": host.name, **(jump if number else {})},
        }
        for number, (host, addr) in enumerate(zip(hosts, addrs, strict=True))
    ]


def _second_address(host: NetHost, address: str) -> str:
    """Gives a host another address beside one on eth1, and returns it."""
    prefix, _, number = address.rpartition(".")
    added = f"{prefix}.{100 + int(number)}"
    host.run(["ip", "addr", "add", f"{added}/24", "dev", "eth1"])
    return added


@pytest.mark.oneflow
def test_lenet_keeps_to_the_second_network_and_the_fixed_ports(nodes: TwoNetworks) -> None:
    nodes.allow(RUN_PORTS)
    done = nodes.lab.flowlaunch("run", LENET, "--", "--epochs", "1")
    assert done.code == 0, done.err
    plan = json.loads((nodes.lab.run_dir() / "plan.json").read_text())
    assert plan["world_size"] == 3 * SLOTS
    # The ports of the first run are in TIME_WAIT now; a second one must not stumble over them.
    again = nodes.lab.flowlaunch("run", LENET, "--", "--epochs", "1")
    assert again.code == 0, again.err
    nodes.lab.no_survivors()


def test_check_passes_where_only_the_ports_of_a_run_are_open(nodes: TwoNetworks) -> None:
    nodes.allow(RUN_PORTS)
    done = nodes.lab.flowlaunch("check")
    assert done.code == 0, done.out + done.err
    assert "3 nodes ready" in done.out
    assert "9 of 9 ways" in done.out


def _findings(lab: Lab) -> list[dict[str, object]]:
    done = lab.flowlaunch("check", "--json")
    assert done.code == 69, done.out + done.err
    return [finding for finding in json.loads(done.out)["findings"] if finding["topic"] == "path"]


def test_one_closed_port_is_named_with_the_pair_and_the_direction(nodes: TwoNetworks) -> None:
    nodes.allow(RUN_PORTS)
    closed = DATA_PORT + 1
    caller = nodes.addrs[1].replace(".102", ".2")
    blocked = f"ip saddr {caller} tcp dport {closed} drop"
    firewall(nodes.hosts[2], f"{blocked}; {RUN_PORTS}")
    (finding,) = _findings(nodes.lab)
    addr = nodes.addrs[2]
    assert finding["message"] == f"n2 -> n3: nothing answers at {addr} port {closed} alone"
    assert "the other way answers" in str(finding["cause"])
    assert f"nft insert rule inet filter input ip saddr {{ {nodes.addrs[1]} }}" in str(
        finding["fix"]
    )
    shown = nodes.lab.flowlaunch("check")
    assert shown.code == 69
    rows = [line.split() for line in shown.out.splitlines()]
    assert ["n1", "ok", "ok", "ok"] in rows
    assert ["n2", "ok", "ok", "no", "answer"] in rows
    assert ["n3", "ok", "ok", "ok"] in rows


def test_a_run_tries_the_ways_before_it_starts_anything(nodes: TwoNetworks) -> None:
    nodes.allow(RUN_PORTS)
    closed = DATA_PORT + 1
    caller = nodes.addrs[1].replace(".102", ".2")
    firewall(nodes.hosts[2], f"ip saddr {caller} tcp dport {closed} drop; {RUN_PORTS}")
    job = str(nodes.lab.write("job.py", "print('started')"))
    done = nodes.lab.flowlaunch("run", job)
    assert done.code == 69, done.out + done.err
    assert f"n2 -> n3: nothing answers at {nodes.addrs[2]} port {closed} alone" in done.err
    assert "the other way answers" in done.err
    assert f"let TCP {closed} in on n3" in done.err
    assert done.last_line == "exit 69: cannot use n3"
    assert "worker_started" not in {event["event"] for event in nodes.lab.events()}
    nodes.lab.no_survivors()
    unchecked = nodes.lab.flowlaunch("run", "--no-check", job)
    assert unchecked.code == 0, unchecked.err
    assert unchecked.out.count("started") == 3 * SLOTS
    nodes.allow(RUN_PORTS)
    open_again = nodes.lab.flowlaunch("run", job)
    assert open_again.code == 0, open_again.err
    assert open_again.out.count("started") == 3 * SLOTS


def test_a_closed_rendezvous_is_told_from_closed_data_ports(nodes: TwoNetworks) -> None:
    nodes.allow(RUN_PORTS)
    last = DATA_PORT + 2 * SLOTS - 1
    data_only = f"tcp dport {DATA_PORT}-{last}"
    nodes.allow(data_only, only=0, verdict="reject with tcp reset")
    (finding,) = _findings(nodes.lab)
    expected = f"n[2-3] -> n1: the call is refused at {nodes.addrs[0]} port {CTRL_PORT} alone"
    assert finding["message"] == expected
    assert "reject" in str(finding["cause"])


def test_an_addr_that_is_another_machines_is_found_out(nodes: TwoNetworks) -> None:
    entries = _entries(nodes.hosts, nodes.addrs)
    entries[1]["addr"] = nodes.addrs[2].rpartition(".")[0] + ".77"
    nodes.lab.manifest("/usr/bin/python3", entries, ctrl_port=CTRL_PORT, data_port=DATA_PORT)
    findings = _findings(nodes.lab)
    assert {str(finding["message"]).partition(":")[0] for finding in findings} == {"n[1-3] -> n2"}
    for finding in findings:
        assert "none of n2's own addresses" in str(finding["cause"])
        assert f"such as {nodes.addrs[1].replace('.102', '.2')}" in str(finding["fix"])
