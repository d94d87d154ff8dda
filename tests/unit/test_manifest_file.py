"""What stands at the manifest's path may be anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.errors import ManifestError
from launcher.store.manifest_file import MOST_BYTES, read_manifest

ROOT = Path(__file__).parents[2]


def refusal(path: Path) -> ManifestError:
    """Returns the error, which must come at once."""
    started = time.monotonic()
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert time.monotonic() - started < 2
    assert all(line.startswith(str(path)) for line in caught.value.problems)
    return caught.value


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    os.mkfifo(path)
    assert refusal(path).problems == [f"{path}: expected a file, this is a FIFO"]


def test_a_directory(tmp_path: Path) -> None:
    assert refusal(tmp_path).problems == [f"{tmp_path}: expected a file, this is a directory"]


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device(device: str) -> None:
    assert refusal(Path(device)).problems == [f"{device}: expected a file, this is a device"]


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("cluster.yaml")
        error = refusal(Path("cluster.yaml"))
    assert error.problems == ["cluster.yaml: expected a file, this is a socket"]


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    error = refusal(path)
    assert error.problems == [f"{path}: there is no such file"]
    assert "flowlaunch init" in error.hint
    assert "this machine alone" in error.hint


def test_a_link_that_leads_nowhere_or_in_a_circle(tmp_path: Path) -> None:
    nowhere, circle = tmp_path / "nowhere", tmp_path / "circle"
    nowhere.symlink_to(tmp_path / "gone")
    circle.symlink_to(circle)
    assert refusal(nowhere).problems == [f"{nowhere}: there is no such file"]
    assert "cannot be read" in refusal(circle).problems[0]


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "cluster.yaml"
    assert refusal(path).problems == [f"{path}: cannot be read: Not a directory"]


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "a\0b").problems[0]
    assert "cannot be read" in refusal(tmp_path / ("a" * 5000)).problems[0]


def test_a_file_that_this_user_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("nodes: [{name: a}]\n", encoding="utf-8")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything
        assert read_manifest(path).nodes[0].name == "a"
    else:
        assert refusal(path).problems == [f"{path}: cannot be read: Permission denied"]


def test_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("nodes:\n" + "  - {name: a}\n" * 750_000, encoding="utf-8")
    assert path.stat().st_size > 10_000_000
    error = refusal(path)
    assert error.problems == [f"{path}: bigger than 4 MiB, the most that a manifest may have"]


def test_a_file_that_says_it_is_empty_but_is_not(tmp_path: Path) -> None:
    """What /proc shows has a size of 0."""
    assert refusal(Path("/proc/self/status")).problems[0].startswith("/proc/self/status:")


def _bomb() -> str:
    levels = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    return "\n".join(["a0: &a0 [lol,lol,lol]", *levels, "nodes: *a29", ""])


_HOSTILE = {
    "bomb": _bomb(),
    "brackets": "nodes: " + "[" * (MOST_BYTES - 100),
    "braces": "nodes: " + "{" * (MOST_BYTES - 100),
    "dashes": "- " * (MOST_BYTES // 2 - 100),
    "questions": "? " * (MOST_BYTES // 2 - 100),
    "values": "nodes: [" + "a," * (MOST_BYTES // 2 - 100) + "]",
    "problems": "nodes:\n" + "- 1\n" * (MOST_BYTES // 4 - 100),
    "keys": "\n".join(f"k{n}: 1" for n in range(300_000)),
    "one scalar": "name: '" + "x" * (MOST_BYTES - 100) + "'",
    "quotes": "name: '" + "''" * (MOST_BYTES // 2 - 100),
    "comment": "#" * (MOST_BYTES - 100),
    "terms": "nodes: [{name: 'a[1-99999]'}]\ngroups: {g: '" + "a[1-99999]," * 300_000 + "a1'}",
    "ranges": "nodes: [{name: 'a[" + "1," * (MOST_BYTES // 2 - 100) + "1]'}]",
    "groups": "nodes: [{name: 'a[1-90000]'}]\ngroups:\n"
    + "".join(f"  g{n}: 'a[1-90000]'\n" for n in range(100_000)),
}
_MEASURE = """
import sys, time
from pathlib import Path
from launcher.errors import ManifestError
from launcher.store.manifest_file import read_manifest
import launcher.core.manifest_form, launcher.core.manifest_nodes
import ClusterShell.NodeSet
def peak_kib():
    # Not ru_maxrss: a child begins with its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
before = peak_kib()
started = time.process_time()
try:
    read_manifest(Path(sys.argv[1]))
except ManifestError:
    print((peak_kib() - before) // 1024, time.process_time() - started)
"""


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_file_takes_bounded_memory_and_time(name: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(_HOSTILE[name], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    grown_mib, cpu_s = map(float, done.stdout.split())
    print(f"{name}: {grown_mib:.0f} MiB, {cpu_s:.2f} s")  # noqa: T201
    assert grown_mib < (16 if name == "bomb" else 256)
    assert cpu_s < (0.5 if name == "bomb" else 10)
