"""A node for each test, which leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.talk import Node, new_node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with new_node(tmp_path / "login") as made:
        yield made
