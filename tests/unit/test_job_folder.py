"""Which folder travels for a job, which of its files, and how the workers see paths."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from launcher.errors import StoreError, UsageError
from launcher.run.planning import _absolute
from launcher.store import job_folder
from launcher.store.job_folder import JobFolder, job_spec, read_folder


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of no repository, which is also the working directory."""
    folder = (tmp_path / "folder").resolve()
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder


def write(top: Path, *names: str, text: str = "x") -> None:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(top: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    subprocess.run(command, cwd=top, check=True, capture_output=True)


def names(folder: JobFolder) -> list[str]:
    return [file.path for file in folder.files]


# Which files


def test_outside_of_git_all_but_what_never_belongs_to_a_program_travels(top: Path) -> None:
    write(top, "job.py", "pkg/mod.py", ".hidden", "data/x.bin")
    write(top, ".git/x", "__pycache__/a.pyc", "pkg/b.pyc", ".venv/x", "runs/r/log", "a~", "s.swp")
    assert names(read_folder(top)) == [".hidden", "data/x.bin", "job.py", "pkg/mod.py"]


def test_in_git_tracked_and_untracked_files_travel_and_ignored_ones_do_not(top: Path) -> None:
    git(top, "init")
    write(top, ".gitignore", text="*.log\nbig/\n")
    write(top, "tracked.py", "untracked.py", "a.log", "big/data", "deep/b.log", "deep/c")
    git(top, "add", "tracked.py", ".gitignore")
    git(top, "commit", "-m", "x")
    write(top, "tracked.py", text="changed")
    folder = read_folder(top)
    assert names(folder) == [".gitignore", "deep/c", "tracked.py", "untracked.py"]
    assert folder.files[2].size == len("changed")


def test_a_tracked_file_that_was_removed_does_not_travel(top: Path) -> None:
    git(top, "init")
    write(top, "a.py", "b.py")
    git(top, "add", ".")
    (top / "a.py").unlink()
    assert names(read_folder(top)) == ["b.py"]


def test_of_a_repository_only_the_jobs_folder_travels(top: Path) -> None:
    git(top, "init")
    write(top, "jobs/job.py", "other/x.py")
    git(top, "add", ".")
    assert names(read_folder(top / "jobs")) == ["job.py"]


def test_the_same_files_give_the_same_hash_and_a_change_another(top: Path) -> None:
    write(top, "a.py", "b/c.py")
    before = read_folder(top).tree
    assert read_folder(top).tree == before
    (top / "a.py").chmod(0o755)
    with_mode = read_folder(top).tree
    write(top, "a.py", text="y")
    assert len({before, with_mode, read_folder(top).tree}) == 3


def test_modes_are_kept(top: Path) -> None:
    write(top, "run.sh", "secret")
    (top / "run.sh").chmod(0o755)
    (top / "secret").chmod(0o600)
    assert [oct(file.mode) for file in read_folder(top).files] == ["0o755", "0o600"]


def test_what_is_no_file_does_not_travel(top: Path) -> None:
    write(top, "a.py")
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert names(read_folder(top)) == ["a.py"]


@pytest.mark.parametrize("name", ["with space", "neue Zeile\n", "ä✓", "-dash", "'quote\"", "a\tb"])
@pytest.mark.parametrize("in_git", [False, True])
def test_odd_names_travel(top: Path, name: str, in_git: bool) -> None:
    if in_git:
        git(top, "init")
    write(top, name)
    assert names(read_folder(top)) == [name]


def test_a_name_that_is_no_utf8_is_named(top: Path) -> None:
    with open(os.fsencode(top) + b"/bad\xff", "wb"):  # noqa: PTH123
        pass
    with pytest.raises(UsageError, match="no UTF-8"):
        read_folder(top)


def test_a_folder_that_is_too_large_is_refused_with_a_way_out(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_folder, "MAX_BYTES", 1 << 20)
    (top / "a").write_bytes(bytes(1 << 20))
    read_folder(top)
    write(top, "b")
    with pytest.raises(UsageError, match="more than 1 MB") as caught:
        read_folder(top)
    assert ".gitignore" in caught.value.hint


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(top: Path) -> None:
    write(top, "a")
    (top / "a").chmod(0)
    with pytest.raises(StoreError, match="Permission denied"):
        read_folder(top)


def test_equal_files_are_found_by_their_content(top: Path) -> None:
    write(top, "a", "b")
    folder = read_folder(top)
    assert folder.path_of(folder.files[1].sha256).read_text() == "x"


# Links


@pytest.mark.parametrize("in_git", [False, True])
def test_a_link_inside_travels_as_the_file_that_it_leads_to(top: Path, in_git: bool) -> None:
    if in_git:
        git(top, "init")
    write(top, "a.py", text="text")
    (top / "link.py").symlink_to("a.py")
    folder = read_folder(top)
    assert names(folder) == ["a.py", "link.py"]
    assert folder.files[0].sha256 == folder.files[1].sha256


@pytest.mark.parametrize("in_git", [False, True])
@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "/nonexistent", "/tmp"])
def test_a_link_that_leads_out_is_refused(top: Path, target: str, in_git: bool) -> None:
    if in_git:
        git(top, "init")
    write(top.parent, "outside")
    (top / "link").symlink_to(target)
    with pytest.raises(UsageError, match="a link that leads out") as caught:
        read_folder(top)
    assert "link" in caught.value.message


def test_a_file_behind_a_linked_directory_that_leads_out_is_refused(top: Path) -> None:
    (top / "sub").mkdir()
    (top / "sub" / "data").symlink_to(top.parent)
    with pytest.raises(UsageError, match="leads out"):
        read_folder(top)


@pytest.mark.parametrize("in_git", [False, True])
def test_a_link_to_a_directory_inside_travels_with_its_files(top: Path, in_git: bool) -> None:
    if in_git:
        git(top, "init")
    write(top, "v1/data/x", "a.py")
    (top / "current").symlink_to("v1")
    assert names(read_folder(top)) == ["a.py", "current/data/x", "v1/data/x"]


@pytest.mark.parametrize("target", ["link", "missing"])
def test_a_link_to_nothing_does_not_travel(top: Path, target: str) -> None:
    write(top, "a.py")
    (top / "link").symlink_to(target)
    assert names(read_folder(top)) == ["a.py"]


def test_a_link_to_a_directory_above_it_does_not_go_round_for_ever(top: Path) -> None:
    write(top, "sub/a.py")
    (top / "sub" / "again").symlink_to("..")
    assert "sub/a.py" in names(read_folder(top))


# Which folder


def test_a_script_brings_the_folder_that_it_lies_in(top: Path) -> None:
    write(top, "jobs/lenet.py")
    job, folder = job_spec("jobs/lenet.py", False, ("--x",))
    assert (job.name, job.target, job.is_module, job.args) == ("lenet", "lenet.py", False, ("--x",))
    assert (folder, job.workdir) == (top / "jobs", ".")


def test_a_script_of_a_package_brings_what_the_package_lies_in(top: Path) -> None:
    write(top, "src/pkg/__init__.py", "src/pkg/sub/__init__.py", "src/pkg/sub/train.py")
    job, folder = job_spec("src/pkg/sub/train.py", False, ())
    assert (job.target, folder) == ("pkg/sub/train.py", top / "src")


@pytest.mark.parametrize(("cwd", "workdir"), [(".", "."), ("pkg", "pkg"), ("pkg/sub", "pkg/sub")])
def test_the_workers_stand_where_the_person_stands(
    top: Path, monkeypatch: pytest.MonkeyPatch, cwd: str, workdir: str
) -> None:
    write(top, "pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/train.py")
    monkeypatch.chdir(top / cwd)
    job, _ = job_spec(str(top / "pkg/sub/train.py"), False, ())
    assert job.workdir == workdir


def test_a_script_is_found_through_a_link_to_its_folder(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(top, "real/job.py")
    (top / "link").symlink_to("real")
    monkeypatch.chdir(top / "link")
    job, folder = job_spec("job.py", False, ())
    assert (folder, job.workdir) == (top / "real", ".")
    assert names(read_folder(folder)) == ["job.py"]


@pytest.mark.parametrize("module", ["train", "pkg.train", "pkg"])
def test_a_module_brings_the_working_directory(top: Path, module: str) -> None:
    write(top, "train.py", "pkg/__init__.py", "pkg/train.py", "pkg/__main__.py")
    job, folder = job_spec(module, True, ())
    assert (job.target, job.is_module, folder, job.workdir) == (module, True, top, ".")
    assert job.name == module.rpartition(".")[2]


@pytest.mark.parametrize("script", ["missing.py", "", ".", "folder.py"])
def test_a_script_that_is_none_is_a_usage_error(top: Path, script: str) -> None:
    (top / "folder.py").mkdir()
    with pytest.raises(UsageError):
        job_spec(script, False, ())


@pytest.mark.parametrize("module", ["missing", "pkg.missing", "", ".", "..", "pkg.", "../x", "a b"])
def test_a_module_that_is_none_is_a_usage_error(top: Path, module: str) -> None:
    write(top, "pkg/__init__.py", "../x.py")
    with pytest.raises(UsageError):
        job_spec(module, True, ())


def test_a_script_that_git_ignores_travels_all_the_same(top: Path) -> None:
    git(top, "init")
    write(top, ".gitignore", text="scratch*\n")
    write(top, "scratch.py", "other.py")
    job, folder = job_spec("scratch.py", False, ())
    assert names(read_folder(folder, job.target)) == [".gitignore", "other.py", "scratch.py"]


# Arguments


@pytest.fixture
def folder(top: Path) -> JobFolder:
    write(top, "job.py", "data/in.npz", "../beside/mnist.npz", ".venv/big", "a=b/c")
    return read_folder(top)


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("--data=../beside/mnist.npz", "--data={up}/beside/mnist.npz"),
        ("../beside/mnist.npz", "{up}/beside/mnist.npz"),
        ("../beside", "{up}/beside"),
        ("..", "{up}"),
        (".venv/big", "{up}/folder/.venv/big"),
        ("data/in.npz", "data/in.npz"),
        ("--data=data/in.npz", "--data=data/in.npz"),
        ("--data=data", "--data=data"),
        (".", "."),
        ("missing", "missing"),
        ("--epochs=3", "--epochs=3"),
        ("--flag", "--flag"),
        ("-3", "-3"),
        ("", ""),
        ("--empty=", "--empty="),
        ("/etc/passwd", "/etc/passwd"),
        ("../beside/missing", "../beside/missing"),
        ("x" * 5000, "x" * 5000),
        ("a\0b", "a\0b"),
        ("--kv=lr=0.1", "--kv=lr=0.1"),
    ],
)
def test_a_path_that_does_not_travel_is_given_whole(
    folder: JobFolder, arg: str, expected: str
) -> None:
    assert _absolute(arg, folder) == expected.replace("{up}", str(folder.top.parent))
