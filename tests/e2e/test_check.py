"""`flowlaunch check` as a person runs it, against real logins and real agents."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.keys import make_key
from tests.support.lab import Lab, lab_of_namespaces
from tests.support.netns import NetHost
from tests.support.ready_runtime import make_ready_runtime
from tests.support.servers import SshHost
from tests.support.sshd import find_sshd, running_sshd

LabOf = Callable[[int], Lab]


@pytest.fixture
def loopback_lab(tmp_path: Path) -> Iterator[LabOf]:
    """Makes a lab of nodes that are addresses of this machine, with a runtime in their cache."""
    if find_sshd() is None:
        pytest.skip("needs sshd (CI has it)")
    with contextlib.ExitStack() as stack:

        def make(count: int) -> Lab:
            cache = tmp_path / "cache"
            make_ready_runtime(cache)
            addresses = [f"127.0.1.{number}" for number in range(1, count + 1)]
            host = stack.enter_context(_sshd(tmp_path, cache))
            lab = Lab(tmp_path / "work", tmp_path / "person", [host])
            known = "".join(
                f"[{address}]:{host.port} {host.host_key.public}\n" for address in addresses
            )
            host.known_hosts.write_text(known)
            config = (lab.home / ".ssh" / "config").read_text()
            lines = [line for line in config.splitlines() if "HostName" not in line]
            lines[0] = "Host 127.0.1.*"
            (lab.home / ".ssh" / "config").write_text("\n".join(lines) + "\n")
            nodes = [{"name": f"gpu[01-{count:02}]", "addr": f"127.0.1.[1-{count}]"}]
            lab.manifest("auto", nodes)
            return lab

        yield make


def _sshd(top: Path, cache: Path) -> contextlib.AbstractContextManager[SshHost]:
    home = top / "ssh" / "home"
    return running_sshd(
        top / "ssh",
        # One sshd takes 16 addresses at most, or all.
        addresses=["0.0.0.0"],
        identity=make_key(top / "client_key"),
        settings=[f"SetEnv HOME={home} FLOWLAUNCH_CACHE={cache}"],
    )


def _check_64(lab: Lab) -> float:
    """Checks 64 nodes and returns the seconds that it took."""
    done = lab.flowlaunch("check")
    assert done.code == 0, done.out + done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert ["gpu[01-64]", "ok", "0.9.0+381b12c"] in [row[:3] for row in rows]
    assert "4096 of 4096 ways" in done.out
    return float(done.out.split()[-2])


def test_64_nodes_are_one_row(loopback_lab: LabOf) -> None:
    # One node after the other would take half a minute, whatever else the cores have to do.
    assert _check_64(loopback_lab(64)) < 15.0


@pytest.mark.soak
def test_64_nodes_take_under_5_seconds_on_2_idle_cores(loopback_lab: LabOf) -> None:
    lab = loopback_lab(64)
    assert min(_check_64(lab) for _ in range(3)) < 5.0


@pytest.fixture
def hosts3(netns_hosts: Callable[[int], list[NetHost]]) -> list[NetHost]:
    """Three hosts in namespaces."""
    return netns_hosts(3)


@pytest.fixture
def lab3(tmp_path: Path, hosts3: list[NetHost]) -> Lab:
    """A lab of three hosts, each with a ready runtime in its own home."""
    lab = lab_of_namespaces(tmp_path, hosts3)
    for host in lab.hosts:
        make_ready_runtime(host.home / ".cache" / "flowlaunch")
    lab.manifest("auto", lab.ssh_nodes())
    return lab


def _report(lab: Lab, *arguments: str, code: int) -> dict[str, Any]:
    done = lab.flowlaunch("check", "--json", *arguments)
    assert done.code == code, done.out + done.err
    report: dict[str, Any] = json.loads(done.out)
    assert report["ok"] == (code == 0)
    assert all(finding["fix"] for finding in report["findings"])
    return report


def _finding(report: dict[str, Any], topic: str) -> dict[str, Any]:
    (found,) = [finding for finding in report["findings"] if finding["topic"] == topic]
    return dict(found)


def test_nodes_that_are_well_are_told_apart_from_none(lab3: Lab) -> None:
    report = _report(lab3, code=0)
    assert report["findings"] == []
    assert [node["name"] for node in report["nodes"]] == ["n1", "n2", "n3"]
    for host in lab3.hosts:
        assert list((host.home / ".flowlaunch" / "runs").iterdir()) == []


def test_spares_are_checked_too(lab3: Lab) -> None:
    lab3.manifest("auto", lab3.ssh_nodes(), spares="n3")
    shutil.rmtree(lab3.hosts[2].home / ".cache")
    assert _finding(_report(lab3, code=69), "runtime")["nodes"] == ["n3"]
    assert _report(lab3, "--nodes", "n[1-2]", code=0)["findings"] == []


def test_a_node_that_is_down_does_not_hide_the_others(lab3: Lab) -> None:
    nodes = lab3.ssh_nodes()
    nodes[1]["ssh"] = {"host": lab3.hosts[1].name, "port": 1}
    lab3.manifest("auto", nodes)
    report = _report(lab3, code=69)
    finding = _finding(report, "login")
    assert finding["nodes"] == ["n2"]
    assert "refuses connections on port 1" in finding["message"]
    assert [node["usable"] for node in report["nodes"]] == [True, False, True]
    assert {dial["word"] for dial in report["dials"]} == {"ok"}
    assert {dial["source"] for dial in report["dials"]} == {"n1", "n3"}


def test_a_missing_runtime_and_a_python_without_oneflow_are_errors(lab3: Lab) -> None:
    nodes = lab3.ssh_nodes()
    nodes[2]["python"] = "/usr/bin/python3"
    lab3.manifest("auto", nodes)
    shutil.rmtree(lab3.hosts[1].home / ".cache")
    report = _report(lab3, code=69)
    errors = {
        tuple(each["nodes"]): each for each in report["findings"] if each["topic"] == "runtime"
    }
    assert "flowlaunch provision" in errors[("n2",)]["fix"]
    assert "ModuleNotFoundError" in errors[("n3",)]["cause"]


@pytest.mark.oneflow
def test_a_sites_own_python_is_tried_for_real(lab3: Lab, runtime_python: Path) -> None:
    lab3.manifest(runtime_python, lab3.ssh_nodes())
    report = _report(lab3, code=0)
    for node in report["nodes"]:
        assert node["facts"]["oneflow"]["oneflow"].startswith("0.9.0")
        assert node["facts"]["oneflow"]["error"] == ""


def test_the_odd_node_is_named(lab3: Lab) -> None:
    cache = lab3.hosts[1].home / ".cache" / "flowlaunch"
    shutil.rmtree(cache)
    make_ready_runtime(cache, commit="feedbee", numpy="1.24.4")
    report = _report(lab3, code=69)
    odd = {each["message"]: each for each in report["findings"] if each["topic"] == "same"}
    assert set(odd) == {
        "oneflow differs: 0.9.0+feedbee on n2, 0.9.0+381b12c on n[1,3]",
        "numpy differs: 1.24.4 on n2, 1.26.4 on n[1,3]",
    }
    assert all(each["nodes"] == ["n2"] for each in odd.values())


_LISTENS = """
import socket
server = socket.create_server(("0.0.0.0", 12138))
print("ready", flush=True)
input()
"""


@contextlib.contextmanager
def _listening(host: NetHost) -> Iterator[int]:
    """Runs a program in a namespace that holds port 12138; yields its process id."""
    entry = ["ip", "netns", "exec", host.namespace]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*entry, sys.executable, "-c", _LISTENS], text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.communicate("\n")


def test_a_taken_ctrl_port_names_its_holder(lab3: Lab, hosts3: list[NetHost]) -> None:
    lab3.manifest("auto", lab3.ssh_nodes(), ctrl_port=12138)
    with _listening(hosts3[0]) as pid:
        finding = _finding(_report(lab3, code=69), "ports")
        assert finding["nodes"] == ["n1"]
        assert "port 12138" in finding["message"]
        assert f"(pid {pid})" in finding["cause"]
    assert _report(lab3, code=0)["findings"] == []


def _write_data(lab: Lab, size: int) -> list[Path]:
    paths = [host.home / "set" / "part-0" for host in lab.hosts]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(bytes(size))
    return paths


def test_data_is_compared_by_size_and_content(lab3: Lab) -> None:
    paths = _write_data(lab3, 10_000_000)
    assert _report(lab3, "--data", "~/set", code=0)["findings"] == []
    with paths[2].open("r+b") as file:
        file.write(b"another beginning")
    finding = _finding(_report(lab3, "--data", "~/set", code=69), "data")
    assert finding["nodes"] == ["n3"]
    assert "~/set differs" in finding["message"]
    paths[2].unlink()
    paths[2].parent.rmdir()
    finding = _finding(_report(lab3, "--data", "~/set", code=69), "data")
    assert finding["nodes"] == ["n3"]
    assert "No such file or directory" in finding["message"]


def test_a_full_hash_finds_a_byte_that_samples_miss(lab3: Lab) -> None:
    paths = _write_data(lab3, 10_000_000)
    with paths[1].open("r+b") as file:
        file.seek(400_000)
        file.write(b"x")
    _report(lab3, "--data", "~/set", code=0)
    finding = _finding(_report(lab3, "--data", "~/set", "--full-hash", code=69), "data")
    assert finding["nodes"] == ["n2"]


def test_leftovers_are_told_and_do_not_fail(lab3: Lab) -> None:
    (lab3.hosts[0].home / ".flowlaunch" / "runs" / "old-run" / "n1").mkdir(parents=True)
    report = _report(lab3, code=0)
    finding = _finding(report, "leftovers")
    assert finding["severity"] == "warning"
    assert finding["nodes"] == ["n1"]
    assert "old-run" in finding["message"]
    assert "flowlaunch reap" in finding["fix"]


def test_a_run_that_goes_on_is_told(lab3: Lab) -> None:
    nodes = lab3.ssh_nodes()
    for node in nodes:
        node["python"] = sys.executable
    lab3.manifest("auto", nodes)
    lab3.write(
        "job.py",
        "import sys\nprint('up', flush=True)\nsys.stdin.read()\nimport time\ntime.sleep(60)\n",
    )
    run = lab3.start("run", "job.py")
    try:
        lab3.wait_event("worker_started")
        lab3.manifest("auto", lab3.ssh_nodes())
        left = [each for each in _report(lab3, code=0)["findings"] if each["topic"] == "leftovers"]
        assert {node for each in left for node in each["nodes"]} == {"n1", "n2", "n3"}
        assert all("still goes on" in each["message"] for each in left)
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)
