"""A manifest that a node sends is taken only where every path stays inside."""

from __future__ import annotations

import contextlib
import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core import published
from launcher.core.published import BadManifest, parse_published

SHA = "ab" * 32
KEYS = ["step", "files", "meta", "path", "bytes", "sha256", "error", "part", "rank", "of"]


def manifest(*paths: str) -> bytes:
    files = [{"path": path, "bytes": 1, "sha256": SHA} for path in paths]
    return json.dumps({"step": 3, "files": files}).encode()


@given(st.lists(st.text(alphabet="ab./\\\0\n\u202e\u2028é", max_size=8), max_size=3))
def test_no_path_that_is_taken_leads_out(paths: list[str]) -> None:
    try:
        taken = parse_published(manifest(*paths))
    except BadManifest:
        return
    for file in taken.files:
        pure = PurePosixPath(file.path)
        assert not pure.is_absolute()
        assert ".." not in pure.parts
        assert str(pure) == file.path
        assert file.path.isprintable()


@given(st.binary(max_size=100))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    try:
        parse_published(data)
    except BadManifest as error:
        assert str(error)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(KEYS), x),
        max_leaves=8,
    )
)
def test_any_json_is_a_manifest_or_refused(value: object) -> None:
    with contextlib.suppress(BadManifest):
        assert parse_published(json.dumps(value).encode()).step >= 0


def test_the_files_and_what_the_worker_added() -> None:
    fields = json.loads(manifest("fc1.weight/out", "pickled_data"))
    taken = parse_published(json.dumps({**fields, "meta": {"acc": 0.98}}).encode())
    assert (taken.step, taken.total_bytes, taken.meta) == (3, 2, {"acc": 0.98})
    assert [file.path for file in taken.files] == ["fc1.weight/out", "pickled_data"]


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "MAX_FILES", 2)
    with pytest.raises(BadManifest, match="lists 3 files"):
        parse_published(manifest("a", "b", "c"))


@pytest.mark.parametrize(
    "part",
    [
        {"rank": 2, "of": [0, 1], "attempt": 0},
        {"rank": 0, "of": [0, 0], "attempt": 0},
        {"rank": 0, "of": 7, "attempt": 0},
        {"rank": "x", "of": [0], "attempt": 0},
        {"rank": 0, "of": [0]},
        [],
    ],
)
def test_a_part_that_cannot_be_is_refused(part: object) -> None:
    with pytest.raises(BadManifest):
        parse_published(json.dumps({"step": 3, "files": [], "part": part}).encode())
