"""Somebody else's account on a host: an empty home, no packages, and none of our rights."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.run.wheels import WheelStore
from tests.support.account import PYTHON_LIBRARY, Account, account_host, unix_account
from tests.support.lab import Lab
from tests.support.netns import can_make_namespaces
from tests.support.ready_runtime import make_ready_runtime
from tests.support.served import served
from tests.support.servers import SshHost
from tests.support.sshd import find_sshd

WHOAMI = """
import os, pwd
print(pwd.getpwuid(os.getuid()).pw_name, os.environ["HOME"], flush=True)
"""
TRAIN = """
import getpass
import oneflow as flow
print("sum %g for %s" % (flow.ones(3).sum().numpy(), getpass.getuser()), flush=True)
"""


@pytest.fixture
def account() -> Iterator[Account]:
    with unix_account() as made:
        yield made


@pytest.fixture
def host(tmp_path: Path, account: Account) -> Iterator[SshHost]:
    if not (find_sshd() and can_make_namespaces()):
        pytest.skip("needs root, iproute2 and sshd (CI has them)")
    with account_host(tmp_path / "net", account) as running:
        yield running


@pytest.fixture
def lab(tmp_path: Path, host: SshHost) -> Lab:
    lab = Lab(tmp_path / "work", tmp_path / "person", [host])
    lab.manifest("auto", lab.ssh_nodes())
    return lab


def test_a_fresh_account_is_told_what_it_lacks_and_then_runs(lab: Lab, account: Account) -> None:
    lab.write("job.py", WHOAMI)
    checked = lab.flowlaunch("check", "--json")
    assert checked.code == 69, checked.out + checked.err
    (finding,) = [
        each for each in json.loads(checked.out)["findings"] if each["severity"] == "error"
    ]
    assert (finding["topic"], finding["nodes"]) == ("runtime", ["n1"])
    assert "flowlaunch provision" in finding["fix"]
    ran = lab.flowlaunch("run", "job.py")
    assert ran.code == 69
    assert "the OneFlow runtime is missing or damaged" in ran.err
    assert "flowlaunch provision" in ran.err

    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    assert python is not None
    make_ready_runtime(account.home / ".cache" / "flowlaunch", interpreter=python)
    account.own()
    provisioned = lab.flowlaunch("provision")
    assert provisioned.code == 0, provisioned.err
    assert "n1: nothing to do" in provisioned.err
    ran = lab.flowlaunch("run", "job.py")
    assert ran.code == 0, ran.err
    assert f"n1:0 | {account.name} {account.home}" in ran.out
    lab.no_survivors()
    kept = list((account.home / ".flowlaunch").rglob("*"))
    assert kept
    assert {path.lstat().st_uid for path in kept} == {account.uid}
    assert not list((account.home / ".flowlaunch" / "runs").iterdir())


def _give_python(account: Account, runtime_python: Path) -> None:
    """Copies the interpreter that the tests' runtime stands on into the account, bare."""
    base = runtime_python.resolve().parents[1]
    own = account.home / ".pyenv" / "versions" / base.name
    shutil.copytree(
        base,
        own,
        symlinks=True,
        ignore=shutil.ignore_patterns("site-packages", "test", "__pycache__"),
    )
    (account.home / PYTHON_LIBRARY).symlink_to(own / "lib")
    account.own()


def _train(lab: Lab, account: Account) -> None:
    lab.write("job.py", TRAIN)
    ran = lab.flowlaunch("run", "job.py")
    assert ran.code == 0, ran.err
    assert f"sum 3 for {account.name}" in ran.out
    assert "n1: nothing to do" in lab.flowlaunch("provision").err
    lab.no_survivors()


@pytest.mark.soak
@pytest.mark.oneflow
def test_a_fresh_account_without_an_index_is_provisioned_and_trains(
    lab: Lab, account: Account, runtime_python: Path
) -> None:
    _give_python(account, runtime_python)
    done = lab.flowlaunch("provision", "--offline", limit_s=1500)
    assert done.code == 0, done.err
    assert "n1: built" in done.err
    _train(lab, account)


@pytest.mark.soak
@pytest.mark.oneflow
def test_a_fresh_account_with_an_index_is_provisioned_and_trains(
    lab: Lab, host: SshHost, account: Account, runtime_python: Path
) -> None:
    _give_python(account, runtime_python)
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.check_output([str(runtime_python), "-c", asked], text=True).strip()
    wheels = WheelStore(lambda done, total: None).fetch(version)
    with served(wheels[0].parent) as port:
        gateway = host.extra["gateway"]
        account.write(
            ".config/pip/pip.conf",
            f"[global]\nno-index = true\nfind-links = http://{gateway}:{port}/\n"
            f"trusted-host = {gateway}\n",
        )
        done = lab.flowlaunch("provision", limit_s=1500)
    assert done.code == 0, done.err
    assert "n1: built" in done.err
    _train(lab, account)
