"""What goes wrong before a worker starts: its own exit code, one clear message, nothing left."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.keys import make_key
from tests.support.lab import Done, Lab
from tests.support.servers import SshHost
from tests.support.sshd import find_sshd, running_sshd

HELLO = 'import os; print("rank", os.environ["RANK"])\n'
SECONDS = 12.0


def fails(lab: Lab, code: int, *words: str, args: tuple[str, ...] = ("job.py",)) -> Done:
    """Asserts that a run ends in seconds, with this code and words, and leaves nothing."""
    started = time.monotonic()
    done = lab.flowlaunch("run", *args)
    assert done.code == code, done.err
    assert time.monotonic() - started < SECONDS
    for word in words:
        assert word in done.err, done.err
    assert "Traceback" not in done.err
    lab.no_survivors()
    return done


def test_a_missing_job_file(lab: Lab) -> None:
    fails(lab, 64, "no such file: nothing.py", "hint:", args=("nothing.py",))


def test_an_option_of_the_job_without_the_dashes(lab: Lab) -> None:
    lab.write("job.py", HELLO)
    fails(lab, 64, "--epochs", args=("job.py", "--epochs", "3"))


def test_a_path_of_data_that_is_empty(lab: Lab) -> None:
    done = lab.flowlaunch("check", "--data", "")
    assert done.code == 64
    assert "--data needs a path" in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("nodes: [", "not YAML"),
        ("nodes:\n- {name: a, slot: 2}\n", "did you mean 'slots'?"),
    ],
)
def test_a_wrong_manifest(lab: Lab, text: str, words: str) -> None:
    lab.write("job.py", HELLO)
    lab.write("cluster.yaml", text)
    fails(lab, 65, "cluster.yaml", words)


def test_a_manifest_that_is_not_there(lab: Lab) -> None:
    lab.write("job.py", HELLO)
    fails(lab, 65, "other.yaml", "hint:", args=("job.py", "-c", "other.yaml"))


def test_a_node_that_does_not_answer_is_named_beside_one_that_does(
    tmp_path: Path, ssh_host: SshHost
) -> None:
    lab = Lab(tmp_path / "work", tmp_path / "person", [ssh_host])
    nodes = [*lab.ssh_nodes(), {"name": "gone", "addr": "127.0.0.1", "ssh": {"port": 1}}]
    nodes[0]["addr"] = "127.0.0.2"
    lab.manifest(sys.executable, nodes)
    lab.write("job.py", HELLO)
    done = fails(lab, 69, "gone: ", "refuses connections", "hint:")
    assert done.last_line == "exit 69: cannot use gone"


def test_a_key_that_the_node_does_not_take(tmp_path: Path, ssh_host: SshHost) -> None:
    lab = Lab(tmp_path / "work", tmp_path / "person", [ssh_host])
    config = lab.home / ".ssh" / "config"
    wrong = make_key(tmp_path / "wrong_key")
    config.write_text(config.read_text().replace(str(ssh_host.identity.path), str(wrong.path)))
    lab.manifest(sys.executable, lab.ssh_nodes())
    lab.write("job.py", HELLO)
    fails(lab, 69, f"{ssh_host.name}: ", str(wrong.path), "hint:")


def test_a_host_key_that_has_changed(tmp_path: Path, ssh_host: SshHost) -> None:
    lab = Lab(tmp_path / "work", tmp_path / "person", [ssh_host])
    other = make_key(tmp_path / "other_host_key")
    known = ssh_host.known_hosts.read_text()
    ssh_host.known_hosts.write_text(known.replace(ssh_host.host_key.public, other.public))
    lab.manifest(sys.executable, lab.ssh_nodes())
    lab.write("job.py", HELLO)
    fails(lab, 69, f"{ssh_host.name}: ", "SHA256:", str(ssh_host.known_hosts), "hint:")


@pytest.fixture
def lab_with(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Makes a lab of one sshd with lines of one's own in its configuration."""
    from contextlib import ExitStack

    if find_sshd() is None:
        pytest.skip("needs OpenSSH's sshd (CI has it)")
    with ExitStack() as stack:

        def make(*settings: str) -> Lab:
            host = stack.enter_context(
                running_sshd(tmp_path / "ssh", name="node", settings=settings)
            )
            return Lab(tmp_path / "work", tmp_path / "person", [host])

        yield make


# The command runs where every /usr/bin/python3 is hidden by an empty file.
WITHOUT_PYTHON = (
    "ForceCommand unshare -m sh -c 'for p in /usr/bin/python3*; do "
    'mount --bind /dev/null "$(readlink -f "$p")"; done; eval "$SSH_ORIGINAL_COMMAND"\''
)


def test_a_node_without_python(lab_with: Callable[..., Lab]) -> None:
    lab = lab_with(WITHOUT_PYTHON)
    lab.manifest(sys.executable, lab.ssh_nodes())
    lab.write("job.py", HELLO)
    fails(lab, 69, "node: no Python was found there", "hint: install python3")


def test_an_account_without_a_shell(lab_with: Callable[..., Lab]) -> None:
    lab = lab_with("ForceCommand /usr/sbin/nologin")
    lab.manifest(sys.executable, lab.ssh_nodes())
    lab.write("job.py", HELLO)
    fails(lab, 69, "node: ", "not available", "hint:")


def test_a_noisy_login_is_survived(lab_with: Callable[..., Lab]) -> None:
    lab = lab_with(
        "ForceCommand sh -c 'echo welcome; echo beware >&2; eval \"$SSH_ORIGINAL_COMMAND\"'"
    )
    lab.manifest(sys.executable, lab.ssh_nodes())
    lab.write("job.py", HELLO)
    done = lab.flowlaunch("run", "job.py")
    assert (done.code, done.out) == (0, "node:0 | rank 0\n"), done.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root to mount a small disk (CI has it)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_node_whose_disk_is_full(tmp_path: Path, ssh_host: SshHost, small_disk: Path) -> None:
    lab = Lab(tmp_path / "work", tmp_path / "person", [ssh_host])
    lab.manifest(sys.executable, [{**lab.ssh_nodes()[0], "workdir": str(small_disk)}])
    lab.write("job.py", HELLO)
    fails(lab, 69, f"{ssh_host.name}: ", str(small_disk), "hint: make room there")


def test_a_python_of_the_manifest_that_is_not_there(lab: Lab) -> None:
    lab.manifest("/nowhere/python", [{"name": "this", "transport": "local"}])
    lab.write("job.py", HELLO)
    fails(lab, 69, "this: python /nowhere/python", "hint:")


def test_a_taken_ctrl_port_names_its_holder(lab: Lab) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        nodes = [{"name": "this", "transport": "local"}]
        lab.manifest(sys.executable, nodes, ctrl_port=port)
        lab.write("job.py", HELLO)
        fails(lab, 69, f"ctrl_port {port} is taken by ", "pid", "hint:")


def test_a_link_that_leads_out_of_the_jobs_folder(lab: Lab) -> None:
    lab.manifest(sys.executable, [{"name": "this", "transport": "local"}])
    lab.write("job.py", HELLO)
    (lab.top / "secret").symlink_to("/etc/passwd")
    fails(lab, 64, "secret is a link that leads out", "hint:")
