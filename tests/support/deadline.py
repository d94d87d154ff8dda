"""Waiting on a condition, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_STEP_S = 0.01


def wait_until(condition: Callable[[], T], what: str, limit_s: float = 10.0) -> T:
    """Returns the condition's first true value; fails with `what` at the deadline."""
    end = time.monotonic() + limit_s
    never = threading.Event()
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        never.wait(_STEP_S)
    return value
