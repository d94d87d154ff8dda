"""A tensor that lies in several files, one of each rank that held a part, and the whole of it.

Beside the parts, ``out.part-<rank>``, stands ``shards.json``: ``{"axis": 0, "shape": [6, 4],
"sizes": [[0, 3], [1, 3]]}``: over which axis it was split, and each rank's share of that axis, in
order. The whole is ``out``, the raw bytes in C order as flow.save writes them.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import contextlib
import json
import os
from typing import Any, List, NamedTuple, Tuple

LAYOUT = "shards.json"
WHOLE = "out"


class ShardError(ValueError):
    """The parts of a tensor do not make a whole one."""


class Layout(NamedTuple):
    """How a tensor was split: over which axis, and each rank's share of it, in order."""

    axis: int
    shape: List[int]
    sizes: List[Tuple[int, int]]


def part_name(rank: int) -> str:
    """Returns the name of the file that holds a rank's part.

    >>> part_name(2)
    'out.part-2'
    """
    return "%s.part-%d" % (WHOLE, rank)


def even_sizes(length: int, ranks: List[int]) -> List[Tuple[int, int]]:
    """Returns each rank's share of an axis as OneFlow splits it: the first take one more.

    >>> even_sizes(7, [4, 2, 3])
    [(4, 3), (2, 2), (3, 2)]
    """
    each, more = divmod(length, len(ranks))
    return [(rank, each + (place < more)) for place, rank in enumerate(ranks)]


def pack_layout(layout: Layout) -> bytes:
    """Returns a layout as the content of a ``shards.json``."""
    return json.dumps(layout._asdict()).encode("utf-8")


def read_layout(folder: str) -> Layout:
    """Returns the layout of the tensor in a folder.

    Raises:
        ShardError: it is malformed, or the shares do not fill the axis.
        OSError: it cannot be read.
    """
    where = os.path.join(folder, LAYOUT)
    with open(where, "rb") as file:
        data = file.read()
    try:
        fields = json.loads(data.decode("utf-8"))
        layout = Layout(
            int(fields["axis"]),
            [int(length) for length in fields["shape"]],
            [(int(rank), int(size)) for rank, size in fields["sizes"]],
        )
        total = layout.shape[layout.axis]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ShardError("%s is malformed: %s" % (where, error)) from None
    if sum(size for _, size in layout.sizes) != total or layout.axis < 0:
        raise ShardError("%s: the shares do not fill axis %d" % (where, layout.axis))
    return layout


def join(folder: str, whole: str) -> None:
    """Writes the whole of the tensor whose parts lie in a folder.

    Args:
        folder: holds the parts and their layout.
        whole: the file to write.

    Raises:
        ShardError: the parts do not fit together.
        OSError: one cannot be read, or the whole cannot be written.
    """
    layout = read_layout(folder)
    rows = 1
    for length in layout.shape[: layout.axis]:
        rows *= length
    paths = [os.path.join(folder, part_name(rank)) for rank, size in layout.sizes if size]
    per_row = [_bytes_per_row(path, rows) for path in paths]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "rb")) for path in paths]
        target = stack.enter_context(open(whole, "wb"))
        # Parts without a byte make a whole without one, however many rows that has.
        for _ in range(rows if any(per_row) else 0):
            for file, size in zip(files, per_row):
                _copy(file, target, size)


def _bytes_per_row(path: str, rows: int) -> int:
    size = os.path.getsize(path)
    if rows and size % rows:
        raise ShardError(
            "%s: %d bytes are no whole number for each of %d rows" % (path, size, rows)
        )
    return size // rows if rows else 0


def _copy(source: Any, target: Any, size: int) -> None:
    while size > 0:
        block = source.read(min(size, 1 << 20))
        if not block:
            raise ShardError("%s ends too early" % source.name)
        target.write(block)
        size -= len(block)


def tensors_in_parts(paths: List[str]) -> List[str]:
    """Returns the folders, among a checkpoint's paths, whose tensors lie in parts.

    >>> tensors_in_parts(["pickled_data", "tensor_0/out", "tensor_1/shards.json"])
    ['tensor_1']
    """
    return [os.path.dirname(path) for path in paths if os.path.basename(path) == LAYOUT]


def is_part(path: str, folders: List[str]) -> bool:
    """Says whether a path is of a part, or the layout, of a tensor in one of these folders.

    >>> [is_part("t/" + name, ["t"]) for name in ("out.part-3", "shards.json", "meta")]
    [True, True, False]
    """
    folder, name = os.path.split(path)
    return folder in folders and (name == LAYOUT or name.startswith(WHOLE + ".part-"))
