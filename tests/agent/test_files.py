"""Files on a node: kept by hash, whole or not at all, and built into a folder that is proven."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from launcher.agent.files import FileDiffersError, FileStore, build_tree
from launcher.wire.codec import WireError
from launcher.wire.order import TreeFile
from launcher.wire.tree import tree_hash


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(path: str, data: bytes, mode: int = 0o644) -> TreeFile:
    return TreeFile(path, sha(data), len(data), mode)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(str(tmp_path / "files"))


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_file_is_missing_until_its_last_piece_is_there(store: FileStore, size: int) -> None:
    data = bytes(size)
    wanted = [entry("a", data), entry("b", data)]
    assert store.missing(wanted) == [sha(data)]
    half = size // 2
    if size > 1:
        assert store.put(sha(data), 0, size, data[:half]) is False
        assert store.missing(wanted) == [sha(data)]
        assert store.put(sha(data), half, size, data[half:]) is True
    else:
        assert store.put(sha(data), 0, size, data) is True
    assert store.missing(wanted) == []
    assert Path(store.path(sha(data))).read_bytes() == data


@pytest.mark.parametrize("pieces", [[b"abX"], [b"ab", b"X"], [b"abcd"]])
def test_other_bytes_than_announced_are_not_kept(store: FileStore, pieces: list[bytes]) -> None:
    name, offset = sha(b"abc"), 0
    with pytest.raises(FileDiffersError):
        for piece in pieces:
            store.put(name, offset, 3, piece)
            offset += len(piece)
    assert store.missing([entry("a", b"abc")]) == [name]
    assert not list(Path(store.path(name)).parent.iterdir())


def test_a_file_that_is_sent_again_from_its_beginning_is_taken(store: FileStore) -> None:
    store.put(sha(b"abcd"), 0, 4, b"ab")
    store.put(sha(b"abcd"), 0, 4, b"ab")
    assert store.put(sha(b"abcd"), 2, 4, b"cd") is True
    assert Path(store.path(sha(b"abcd"))).read_bytes() == b"abcd"


def test_a_kept_file_of_another_size_is_missing(store: FileStore) -> None:
    store.put(sha(b"abc"), 0, 3, b"abc")
    Path(store.path(sha(b"abc"))).write_bytes(b"a")
    assert store.missing([entry("a", b"abc")]) == [sha(b"abc")]


@pytest.mark.parametrize("name", ["", "../" * 21 + "x", "A" * 64, "g" * 64, "a" * 63, "a" * 65])
def test_a_name_that_is_no_hash_is_refused(store: FileStore, name: str) -> None:
    with pytest.raises(WireError):
        store.path(name)


def test_a_folder_is_built_with_its_modes_and_proven(store: FileStore, tmp_path: Path) -> None:
    files = [entry("a.py", b"1"), entry("deep/er/run.sh", b"2", 0o755), entry("ro", b"1", 0o400)]
    for data in (b"1", b"2"):
        store.put(sha(data), 0, 1, data)
    top = tmp_path / "work"
    assert build_tree(store, files, str(top)) == tree_hash(files)
    assert (top / "deep/er/run.sh").stat().st_mode & 0o777 == 0o755
    assert (top / "ro").stat().st_mode & 0o777 == 0o400


def test_a_job_that_changes_its_own_files_changes_no_kept_one(
    store: FileStore, tmp_path: Path
) -> None:
    store.put(sha(b"1"), 0, 1, b"1")
    build_tree(store, [entry("a", b"1")], str(tmp_path / "work"))
    (tmp_path / "work" / "a").write_bytes(b"changed")
    assert Path(store.path(sha(b"1"))).read_bytes() == b"1"


def test_a_damaged_kept_file_shows_in_the_proof_and_is_kept_no_longer(
    store: FileStore, tmp_path: Path
) -> None:
    store.put(sha(b"abc"), 0, 3, b"abc")
    Path(store.path(sha(b"abc"))).write_bytes(b"\0\0\0")
    wanted = [entry("a", b"abc")]
    assert build_tree(store, wanted, str(tmp_path / "work")) != tree_hash(wanted)
    assert store.missing(wanted) == [sha(b"abc")]


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x"])
def test_a_path_out_of_the_folder_is_refused(store: FileStore, tmp_path: Path, path: str) -> None:
    store.put(sha(b"1"), 0, 1, b"1")
    with pytest.raises(WireError):
        build_tree(store, [entry(path, b"1")], str(tmp_path / "work"))
    assert not (tmp_path / "x").exists()
