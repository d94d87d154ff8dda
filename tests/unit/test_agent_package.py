"""The agent is packed once, however many nodes ask for it at a time."""

from __future__ import annotations

import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from launcher.run import agent_package as module


def test_threads_that_ask_at_a_time_have_it_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, opened = 8, []
    together = threading.Barrier(threads)

    class Counting(zipfile.ZipFile):
        def __init__(self, *arguments: object) -> None:
            opened.append(self)
            super().__init__(*arguments)  # type: ignore[arg-type]

    def ask() -> module.AgentPackage:
        together.wait(10)
        return module.agent_package()

    monkeypatch.setattr(zipfile, "ZipFile", Counting)
    module._package.cache_clear()
    with ThreadPoolExecutor(threads) as pool:
        packages = {pool.submit(ask) for _ in range(threads)}
    assert len({package.result().digest for package in packages}) == 1
    assert len(opened) == 1
