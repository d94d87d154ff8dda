"""`flowlaunch provision` as a person runs it: ready nodes, a site's own Python, no index."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.agent.runtime_lock import SPEC
from launcher.run.wheels import WheelStore
from tests.support.lab import Lab, lab_of_namespaces
from tests.support.netns import NetHost
from tests.support.ready_runtime import make_ready_runtime
from tests.support.served import served

JOB = """
import oneflow as flow
print("sum %g" % flow.ones(3).sum().numpy(), flush=True)
"""


@pytest.fixture
def hosts2(netns_hosts: Callable[[int], list[NetHost]]) -> list[NetHost]:
    """Two hosts with fresh homes, which reach nothing but each other and this machine."""
    return netns_hosts(2)


@pytest.fixture
def lab2(tmp_path: Path, hosts2: list[NetHost]) -> Lab:
    """A lab of the two hosts."""
    lab = lab_of_namespaces(tmp_path, hosts2)
    lab.manifest("auto", lab.ssh_nodes())
    return lab


def _make_ready(lab: Lab) -> None:
    for host in lab.hosts:
        make_ready_runtime(host.home / ".cache" / "flowlaunch")


def test_nodes_that_have_the_runtime_are_left_as_they_are(lab2: Lab) -> None:
    _make_ready(lab2)
    done = lab2.flowlaunch("provision")
    assert done.code == 0, done.err
    assert "n1: nothing to do" in done.err
    assert "n2: nothing to do" in done.err


def test_nodes_that_end_up_different_are_told(lab2: Lab) -> None:
    for host, numpy in zip(lab2.hosts, ("1.26.4", "1.24.4"), strict=True):
        make_ready_runtime(host.home / ".cache" / "flowlaunch", numpy=numpy)
    done = lab2.flowlaunch("provision")
    assert done.code == 0, done.err
    assert "numpy differs: 1.26.4 on n1, 1.24.4 on n2" in done.out


def test_remove_takes_the_runtime_away_once(lab2: Lab) -> None:
    _make_ready(lab2)
    done = lab2.flowlaunch("provision", "--remove")
    assert done.code == 0, done.err
    assert "n1: removed" in done.err
    for host in lab2.hosts:
        assert not list((host.home / ".cache" / "flowlaunch" / "runtime").glob("*/bin/python"))
    assert "n2: nothing to do" in lab2.flowlaunch("provision", "--remove").err


def test_a_runtime_in_use_is_not_removed(lab2: Lab) -> None:
    _make_ready(lab2)
    lab2.manifest(sys.executable, lab2.ssh_nodes())
    lab2.write("job.py", "import signal\nprint('up', flush=True)\nsignal.pause()\n")
    run = lab2.start("run", "job.py")
    try:
        lab2.wait_event("worker_started")
        done = lab2.flowlaunch("provision", "--remove")
        assert done.code == 69
        assert f"flowlaunch stop {lab2.run_id()}" in done.err
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)


@pytest.mark.oneflow
def test_a_sites_own_python_with_oneflow_is_used_as_it_is(lab2: Lab, runtime_python: Path) -> None:
    done = lab2.flowlaunch("provision", "--python", str(runtime_python))
    assert done.code == 0, done.err
    assert f"n1: nothing to do, {runtime_python}" in done.err
    assert f'write "python: {runtime_python}" into the manifest' in done.err


def test_a_python_that_cannot_carry_the_runtime_is_an_error(lab2: Lab) -> None:
    done = lab2.flowlaunch("provision", "--python", "/bin/cat")
    assert done.code == 69
    assert "cannot be built on /bin/cat" in done.err
    assert f"name a CPython {' or '.join(SPEC.pythons)}" in done.err


def test_without_an_index_the_error_names_the_way_out(lab2: Lab, runtime_python: Path) -> None:
    base = runtime_python.resolve()
    for host in lab2.hosts:
        pip = host.home / ".config" / "pip" / "pip.conf"
        pip.parent.mkdir(parents=True)
        pip.write_text("[global]\nindex-url = http://127.0.0.1:9/simple\nretries = 0\n")
    done = lab2.flowlaunch("provision", "--python", str(base))
    assert done.code == 69, done.err
    assert "--offline" in done.err


@pytest.mark.soak
@pytest.mark.oneflow
def test_fresh_accounts_without_an_index_are_provisioned_and_train(
    lab2: Lab, runtime_python: Path
) -> None:
    base = runtime_python.resolve()
    done = lab2.flowlaunch("provision", "--offline", "--python", str(base), limit_s=1500)
    assert done.code == 0, done.err
    assert "n1: built" in done.err
    assert "n2: built" in done.err
    lab2.write("job.py", JOB)
    ran = lab2.flowlaunch("run", "job.py")
    assert ran.code == 0, ran.err
    assert ran.out.count("sum 3") == 2
    again = lab2.flowlaunch("provision", "--offline")
    assert again.err.count("nothing to do") == 2


@pytest.mark.soak
@pytest.mark.oneflow
def test_a_fresh_account_with_an_index_is_provisioned_and_trains(
    lab2: Lab, hosts2: list[NetHost], runtime_python: Path
) -> None:
    lab2.manifest("auto", lab2.ssh_nodes()[:1])
    version = subprocess.run(
        [str(runtime_python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    wheels = WheelStore(lambda done, total: None).fetch(version)
    pip = lab2.hosts[0].home / ".config" / "pip" / "pip.conf"
    pip.parent.mkdir(parents=True)
    with served(wheels[0].parent) as port:
        links = f"http://{hosts2[0].gateway}:{port}/"
        pip.write_text(
            f"[global]\nno-index = true\nfind-links = {links}\ntrusted-host = {hosts2[0].gateway}\n"
        )
        base = str(runtime_python.resolve())
        done = lab2.flowlaunch("provision", "--python", base, limit_s=1500)
    assert done.code == 0, done.err
    assert "n1: built" in done.err
    lab2.write("job.py", JOB)
    ran = lab2.flowlaunch("run", "job.py")
    assert ran.code == 0, ran.err
    assert "sum 3" in ran.out
