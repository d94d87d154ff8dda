"""Whether what `flow.save` writes is whole: it writes in place, and `pickled_data` comes last.

A saved directory has `pickled_data` and a directory for each tensor, with the raw bytes in `out`
and its shape and type in `meta`, as protobuf text.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import os
import re
from typing import Iterable, Optional

PICKLE = "pickled_data"
_META_BYTES = 64 * 1024
_TYPE = re.compile(r"\bdata_type:\s*(k\w+)")
_DIM = re.compile(r"\bdim:\s*(\d+)")
_SIZES = {
    "kBool": 1, "kChar": 1, "kInt8": 1, "kUInt8": 1, "kFloat16": 2, "kBFloat16": 2, "kInt16": 2,
    "kUInt16": 2, "kFloat": 4, "kInt32": 4, "kUInt32": 4, "kDouble": 8, "kInt64": 8, "kUInt64": 8,
    "kComplex32": 4, "kComplex64": 8, "kComplex128": 16,
}  # fmt: skip


def torn(top: str, paths: Iterable[str]) -> str:
    """Returns what of saved directories is not whole, "" where nothing is.

    Args:
        top: where the paths begin.
        paths: all files, relative to it.

    Raises:
        OSError: a file cannot be read.
    """
    known = set(paths)
    for path in sorted(known):
        folder, name = os.path.split(path)
        expected = _expected_bytes(os.path.join(top, path)) if name == "meta" else None
        if expected is None:
            continue
        data = os.path.join(folder, "out")
        size = os.path.getsize(os.path.join(top, data)) if data in known else 0
        if size != expected:
            return "%s has %d bytes, its shape and type make %d" % (data, size, expected)
        if os.path.join(os.path.dirname(folder), PICKLE) not in known:
            where = os.path.dirname(folder) or "."
            return "%s was not saved to its end: it has no %s" % (where, PICKLE)
    return ""


def _expected_bytes(meta: str) -> Optional[int]:
    """Returns the size of a tensor, None where a file is none of flow.save's."""
    with open(meta, "rb") as file:
        text = file.read(_META_BYTES).decode("utf-8", "replace")
    found = _TYPE.search(text)
    size = _SIZES.get(found.group(1)) if found and "shape" in text else None
    if size is None:
        return None
    for dim in _DIM.findall(text):
        size *= int(dim)
    return size
