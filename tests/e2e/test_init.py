"""`flowlaunch init`: from hosts that ssh reaches to a manifest that `check` passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.store.manifest_file import read_manifest
from tests.support.lab import Lab, lab_of_namespaces
from tests.support.netns import NetHost
from tests.support.networks import firewall, second_network
from tests.support.ready_runtime import make_ready_runtime


@pytest.fixture
def hosts3(netns_hosts: Callable[[int], list[NetHost]]) -> list[NetHost]:
    """Three hosts in namespaces."""
    return netns_hosts(3)


@pytest.fixture
def lab3(tmp_path: Path, hosts3: list[NetHost]) -> Lab:
    """A person who has never described these hosts, which have the runtime."""
    lab = lab_of_namespaces(tmp_path, hosts3)
    for host in lab.hosts:
        make_ready_runtime(host.home / ".cache" / "flowlaunch")
    return lab


def test_what_it_writes_is_what_check_passes(lab3: Lab) -> None:
    done = lab3.flowlaunch("init", "n[1-3]", "--user", "root")
    assert done.code == 0, done.out + done.err
    text = (lab3.top / "cluster.yaml").read_text()
    addresses = [host.address for host in lab3.hosts]
    prefix = addresses[0].rpartition(".")[0]
    assert f'- {{name: "n[1-3]", addr: "{prefix}.[1-3]", ssh: {{host: "n[1-3]"}}}}' in text
    assert 'user: "root"' in text
    spec = read_manifest(lab3.top / "cluster.yaml")
    assert [node.addr for node in spec.nodes] == addresses
    checked = lab3.flowlaunch("check")
    assert checked.code == 0, checked.out
    assert "9 of 9 ways" in checked.out


def test_an_existing_file_is_never_overwritten_unasked(lab3: Lab) -> None:
    lab3.write("cluster.yaml", "mine\n")
    done = lab3.flowlaunch("init", "n1", "n2")
    assert done.code == 64
    assert "cluster.yaml" in done.err
    assert "--force" in done.err
    assert (lab3.top / "cluster.yaml").read_text() == "mine\n"
    done = lab3.flowlaunch("init", "n1", "n2", "--force")
    assert done.code == 0, done.err
    assert len(read_manifest(lab3.top / "cluster.yaml").nodes) == 2


def test_the_network_that_lets_them_talk_is_chosen(lab3: Lab, hosts3: list[NetHost]) -> None:
    with second_network(hosts3) as addresses:
        for host in hosts3:
            firewall(host, "iifname eth1 ip protocol tcp")
        done = lab3.flowlaunch("init", "n1", "n2", "n3", "-o", "other.yaml")
        assert done.code == 0, done.out + done.err
        spec = read_manifest(lab3.top / "other.yaml")
        assert [node.addr for node in spec.nodes] == addresses
        for host in hosts3:
            firewall(host, "iifname eth0 ip protocol tcp")
        done = lab3.flowlaunch("init", "n1", "n2", "n3", "-o", "other.yaml", "--force")
        assert done.code == 0, done.out + done.err
        spec = read_manifest(lab3.top / "other.yaml")
        assert [node.addr for node in spec.nodes] == [host.address for host in hosts3]


def test_nothing_is_written_where_a_host_cannot_be_used(lab3: Lab) -> None:
    done = lab3.flowlaunch("init", "n1", "nowhere.invalid")
    assert done.code == 69
    assert "nowhere.invalid" in done.out
    assert "fix:" in done.out
    assert not (lab3.top / "cluster.yaml").exists()
