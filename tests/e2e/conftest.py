"""Labs for the tests that use the product as a person does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.lab import Factory, Lab, lab_of_namespaces
from tests.support.netns import NetHost


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A person with no cluster: everything runs on this machine."""
    return Lab(tmp_path / "work", tmp_path / "person")


@pytest.fixture
def lab_of(tmp_path: Path, netns_hosts: Callable[[int], list[NetHost]]) -> Factory:
    """Makes a lab of that many hosts in network namespaces."""
    return lambda count: lab_of_namespaces(tmp_path, netns_hosts(count))
