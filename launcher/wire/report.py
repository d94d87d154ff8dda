"""A worker's report of how its job stands: as a line, and as what is left of one that was held.

A number that JSON lacks stands as the word for it: ``"nan"``, ``"inf"``, ``"-inf"``. Python's
``float()`` takes these as it takes numbers.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import json
import math
import struct
import zlib
from typing import Dict, NamedTuple, Optional

# Beside a report file, with the number of the process that holds its last report back.
LAST_MARK = ".last-"
_WORDS = {math.inf: '"inf"', -math.inf: '"-inf"'}
_HEAD = struct.Struct("<II")
_NUMBERS = "<dqq%dd"
_ABSENT = -(1 << 63)
# Names as JSON, and what is the same in all reports of the same names.
_QUOTED: Dict[str, str] = {}
_KNOWN: "Dict[tuple[str, ...], tuple[bytes, struct.Struct]]" = {}
_MOST_KNOWN = 1000


class Report(NamedTuple):
    """One report. Without `step` or `total` it says nothing of them."""

    time: float
    step: Optional[int]
    total: Optional[int]
    values: Dict[str, float]


def line_of(report: Report) -> str:
    r"""Returns a report as a line of the report file.

    >>> line_of(Report(1.5, 3, None, {"loss": 0.5, "x": float("nan")}))
    '{"kind": "metrics", "time": 1.5, "step": 3, "values": {"loss": 0.5, "x": "nan"}}\n'
    """
    parts = ['{"kind": "metrics", "time": %r' % report.time]
    if report.step is not None:
        parts.append(', "step": %d' % report.step)
    if report.total is not None:
        parts.append(', "total": %d' % report.total)
    if report.values:
        pairs = [_quoted(name) + _text(value) for name, value in report.values.items()]
        parts.append(', "values": {%s}' % ", ".join(pairs))
    parts.append("}\n")
    return "".join(parts)


def _quoted(name: str) -> str:
    found = _QUOTED.get(name)
    if found is None:
        if len(_QUOTED) >= _MOST_KNOWN:
            _QUOTED.clear()
        found = _QUOTED[name] = json.dumps(name) + ": "
    return found


def _text(value: float) -> str:
    if value - value == 0:
        return repr(value)
    return _WORDS.get(value, '"nan"')


def pack_last(report: Report) -> bytes:
    """Returns a report in as few steps as possible, with what proves that it is whole.

    Raises:
        struct.error, OverflowError: a number is too large for eight bytes.
    """
    _, step, total, values = report
    names, numbers = _known(tuple(values))
    data = names + numbers.pack(
        report[0],
        _ABSENT if step is None else step,
        _ABSENT if total is None else total,
        *values.values(),
    )
    return _HEAD.pack(zlib.crc32(data), len(names)) + data


def _known(names: "tuple[str, ...]") -> "tuple[bytes, struct.Struct]":
    found = _KNOWN.get(names)
    if found is None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        found = (json.dumps(names).encode("ascii"), struct.Struct(_NUMBERS % len(names)))
        _KNOWN[names] = found
    return found


def unpack_last(data: bytes) -> Optional[Report]:
    """Returns the report that `pack_last` packed; None for one that is torn, or for none.

    >>> unpack_last(pack_last(Report(1.5, 3, None, {"loss": 0.5})) + b"rest of a longer one")
    Report(time=1.5, step=3, total=None, values={'loss': 0.5})
    >>> unpack_last(b"")
    """
    if len(data) < _HEAD.size:
        return None
    crc, size = _HEAD.unpack_from(data)
    try:
        names = json.loads(data[_HEAD.size : _HEAD.size + size].decode("ascii"))
        numbers = struct.Struct(_NUMBERS % len(names))
        end = _HEAD.size + size + numbers.size
        if zlib.crc32(data[_HEAD.size : end]) != crc:
            return None
        time, step, total, *values = numbers.unpack_from(data, _HEAD.size + size)
    except (ValueError, TypeError, struct.error):
        return None
    return Report(
        time,
        None if step == _ABSENT else step,
        None if total == _ABSENT else total,
        dict(zip(names, values)),
    )
