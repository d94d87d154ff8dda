"""Finds the OneFlow runtime that tests train with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def oneflow_python() -> Path:
    """Returns the runtime's interpreter: FLOWLAUNCH_TEST_RUNTIME, else the newest in the cache."""
    named = os.environ.get("FLOWLAUNCH_TEST_RUNTIME")
    if named:
        return Path(named)
    found = sorted(_cache().glob("runtime/*/bin/python"), key=lambda path: path.lstat().st_mtime)
    if not found:
        pytest.fail("there is no OneFlow runtime to test with: `make test` builds one first")
    return found[-1]


def _cache() -> Path:
    own = os.environ.get("FLOWLAUNCH_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flowlaunch"
