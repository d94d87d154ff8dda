"""A tensor in parts is joined as numpy would, and parts that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.wire.shards import (
    LAYOUT,
    Layout,
    ShardError,
    even_sizes,
    join,
    pack_layout,
    part_name,
    read_layout,
)


def write_parts(folder: Path, whole: np.ndarray, axis: int, sizes: list[tuple[int, int]]) -> None:
    folder.mkdir(parents=True)
    (folder / LAYOUT).write_bytes(pack_layout(Layout(axis, list(whole.shape), sizes)))
    first = 0
    for rank, size in sizes:
        part = np.take(whole, range(first, first + size), axis)
        first += size
        if size:
            (folder / part_name(rank)).write_bytes(part.tobytes())


@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    ranks=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    data=st.data(),
)
def test_joined_parts_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    shape: list[int],
    ranks: list[int],
    data: st.DataObject,
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    whole = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    folder = tmp_path_factory.mktemp("parts") / "tensor_0"
    write_parts(folder, whole, axis, even_sizes(shape[axis], ranks))
    join(str(folder), str(folder / "out"))
    assert (folder / "out").read_bytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (b"[]", "malformed"),
        (b'{"axis": 3, "shape": [2], "sizes": []}', "malformed"),
        (b'{"axis": 0, "shape": [2], "sizes": [[0, 1]]}', "do not fill axis 0"),
        (b'{"axis": -1, "shape": [2], "sizes": [[0, 2]]}', "do not fill axis -1"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(tmp_path: Path, layout: bytes, says: str) -> None:
    (tmp_path / LAYOUT).write_bytes(layout)
    with pytest.raises(ShardError, match=says):
        read_layout(str(tmp_path))


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tensor_0"
    write_parts(folder, np.zeros((4, 4), np.float32), 1, [(0, 2), (1, 2)])
    part = folder / part_name(1)
    part.write_bytes(part.read_bytes()[:-3])
    with pytest.raises(ShardError, match=r"out\.part-1: 29 bytes"):
        join(str(folder), str(folder / "out"))


def test_many_rows_without_a_byte_take_no_time(tmp_path: Path) -> None:
    layout = Layout(1, [1 << 60, 0], [(0, 0)])
    (tmp_path / LAYOUT).write_bytes(pack_layout(layout))
    join(str(tmp_path), str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b""
