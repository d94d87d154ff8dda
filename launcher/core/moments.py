"""Times as people write them."""

from __future__ import annotations

import re
from datetime import datetime

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?", re.ASCII)


def moment(text: str, now: float) -> float:
    """Returns a time in seconds since 1970.

    Args:
        text: how long ago (``90s``, ``10m``, ``2h``, ``1d``), a date and time as ISO 8601 has it
            (local where no zone is named), a time of today (``14:30``), or seconds since 1970.
        now: the present, seconds since 1970.

    >>> moment("10m", 1000.0), moment("1700000000", 0.0), moment("1970-01-02T00:00:00Z", 0.0)
    (400.0, 1700000000.0, 86400.0)

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip()
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - float(ago[1]) * _SECONDS[ago[2]]
    if re.fullmatch(r"\d{9,11}(\.\d*)?", text, re.ASCII):
        return float(text)
    if _CLOCK.fullmatch(text):
        text = (
            f"{datetime.fromtimestamp(now).date()}T{text.zfill(5 if text.count(':') == 1 else 8)}"
        )
    try:
        # Python 3.10 does not know the Z.
        return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time: write 10m, 2h, 14:30, 2026-01-31T14:30 or seconds since 1970"
        ) from None
