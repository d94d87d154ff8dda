"""A node's order as payload, and the hash over a folder."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.wire import codec, order
from launcher.wire.tree import tree_hash

SHA = "ab" * 32
ORDER = order.NodeOrder(
    run_id="lenet-20260102-030405-a1b2",
    node="gpu1",
    python="auto",
    build_runtime=False,
    workdir=".",
    tree="",
    files=[order.TreeFile("a/ä.py", SHA, 3, 0o755)],
    workers=[order.WorkerOrder(0, 0, ["script", "a.py", "ü\n'\""], {"K": "v=\0"})],
    hosts_rendezvous=True,
    ctrl_port=0,
    detached=False,
    collect=[],
    max_log_bytes=0,
)
FILES = st.builds(
    order.TreeFile,
    path=st.text(min_size=1, max_size=8),
    sha256=st.sampled_from([SHA, "cd" * 32]),
    size=st.integers(0, 10),
    mode=st.integers(0, 0o777),
)


def test_an_order_comes_back_as_it_was() -> None:
    assert order.unpack(order.pack(ORDER)) == ORDER


@pytest.mark.parametrize("field", ORDER._fields)
def test_an_order_with_a_field_missing_is_refused(field: str) -> None:
    fields = json.loads(order.pack(ORDER))
    del fields[field]
    with pytest.raises(codec.WireError, match="no order"):
        order.unpack(json.dumps(fields).encode())


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"null", b"{}", b"{", b'{"files":[1]}'])
def test_what_is_no_order_is_refused(data: bytes) -> None:
    with pytest.raises(codec.WireError):
        order.unpack(data)


@given(st.lists(FILES, max_size=5), st.randoms(use_true_random=False))
def test_the_hash_of_a_folder_does_not_depend_on_the_order(
    files: list[order.TreeFile], dice: random.Random
) -> None:
    shuffled = list(files)
    dice.shuffle(shuffled)
    assert tree_hash(shuffled) == tree_hash(files)


@given(st.lists(FILES, min_size=1, max_size=4, unique_by=lambda file: file.path))
def test_the_hash_of_a_folder_sees_every_path_mode_and_content(
    files: list[order.TreeFile],
) -> None:
    first, rest = files[0], files[1:]
    others = [
        first._replace(path=first.path + "x"),
        first._replace(mode=first.mode ^ 0o100),
        first._replace(sha256="ef" * 32),
    ]
    before = tree_hash(files)
    assert all(tree_hash([other, *rest]) != before for other in others)
    assert tree_hash(rest) != before
