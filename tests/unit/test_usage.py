"""How busy a node is: the kernel's counters, the GPU library, and what a launcher makes of it."""

from __future__ import annotations

import ctypes
import json
import math
from pathlib import Path
from typing import Any

import pytest

from launcher.agent import nvml, usage
from launcher.collect.system import SystemLog
from launcher.core.usage import GpuUsage, Usage, usage_fields, usage_of
from launcher.wire import events

STAT = "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n"
DISKS = (
    "   8       0 sda 10 0 2000 5 20 0 4000 5 0 5 5\n"
    "   8       1 sda1 10 0 2000 5 20 0 4000 5 0 5 5\n"
    " 259       0 nvme0n1 1 0 10 5 1 0 20 5 0 5 5\n"
    " 259       1 nvme0n1p1 1 0 10 5 1 0 20 5 0 5 5\n"
    "   7       0 loop0 9 0 9000 0 0 0 0 0 0 0 0\n"
)
NETS = (
    "Inter-|   Receive  |  Transmit\n face |bytes packets |bytes packets\n"
    "    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n"
    "  eth0: 1000 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0\n"
    "ib0:70 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n"
)


@pytest.fixture
def proc(tmp_path: Path) -> str:
    (tmp_path / "net").mkdir()
    (tmp_path / "stat").write_text(STAT)
    (tmp_path / "diskstats").write_text(DISKS)
    (tmp_path / "net" / "dev").write_text(NETS)
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n")
    return str(tmp_path)


def test_the_kernels_counters(proc: str) -> None:
    found = usage.counts(proc)
    assert (found.busy, found.total) == (150.0, 1000.0)
    assert (found.read, found.written) == (2010 * 512.0, 4020 * 512.0), "whole disks, once"
    assert (found.received, found.sent) == (1070.0, 530.0), "not the loopback"
    assert usage.standing(proc, proc)["memory_used_bytes"] == 600 * 1024


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    nothing = usage.counts(str(tmp_path))
    assert "cpu" not in usage.between(nothing, nothing, 2.0)
    assert "memory_bytes" not in usage.standing(str(tmp_path), str(tmp_path))


def test_a_counter_that_went_back_gives_no_speed() -> None:
    before, after = usage.Counts(received=100.0), usage.Counts(received=40.0)
    assert "received_bytes_per_s" not in usage.between(before, after, 2.0)


def test_this_machine() -> None:
    seen = usage_of({**usage.between(usage.Counts(), usage.counts(), 1.0), **usage.standing("/")})
    assert seen.cpu is not None and 0 < seen.cpu <= 1
    assert seen.memory is not None and 0 < seen.memory < 1
    assert seen.disk_free_bytes


class Library:
    """NVML's functions for two GPUs, of which the second is divided."""

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:
        handle._obj.value = 100 + index.value
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, use: Any) -> int:
        use._obj.gpu = 97
        return 0 if handle.value == 100 else 3

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:
        memory._obj.total, memory._obj.used = 1000, 250
        return 0


def test_gpus_are_read_as_the_library_gives_them() -> None:
    assert nvml.read(Library()) == [
        {"gpu": 0.97, "memory_bytes": 1000, "memory_used_bytes": 250},
        {"memory_bytes": 1000, "memory_used_bytes": 250},
    ]


def test_without_a_driver_there_is_no_library() -> None:
    assert nvml.load(("libof-no-driver.so.1",)) is None


def test_shares_of_a_node() -> None:
    seen = Usage(
        memory_bytes=100.0,
        memory_used_bytes=25.0,
        gpus=(GpuUsage(1.0, 100.0, 10.0), GpuUsage(0.5, 100.0, 80.0), GpuUsage()),
    )
    assert (seen.memory, seen.gpu, seen.gpu_memory) == (0.25, 0.75, 0.8)
    assert (Usage().memory, Usage().gpu, Usage().gpu_memory) == (None, None, None)
    assert Usage(memory_bytes=0.0, memory_used_bytes=0.0).memory is None


@pytest.mark.parametrize(
    "fields",
    [None, [], 3, {"cpu": "much"}, {"cpu": True}, {"cpu": math.nan}, {"cpu": -1}, {"gpus": {}}],
)
def test_strange_words_of_a_node_mean_nothing(fields: object) -> None:
    assert usage_of(fields) == Usage()


def test_strange_gpus_stay_unknown() -> None:
    assert usage_of({"gpus": [3, {"gpu": "x"}]}).gpus == (GpuUsage(), GpuUsage())


def test_a_measurement_is_kept_by_this_machines_time(tmp_path: Path) -> None:
    log = SystemLog(tmp_path / "system.jsonl")
    data = events.pack_json({"cpu": 0.5, "gpus": [{"gpu": 0.25}], "unknown": 1})
    seen = log.take("n1", events.NodeMeasured(105.0, data), 5.0)
    log.take("n2", events.NodeMeasured(101.0, b"no json"), 0.0)
    log.close()
    first, second = map(json.loads, (tmp_path / "system.jsonl").read_text().splitlines())
    assert first == {"time": 100.0, "node": "n1", "cpu": 0.5, "gpus": [{"gpu": 0.25}]}
    assert second == {"time": 101.0, "node": "n2"}
    assert usage_of(first) == seen
    assert usage_fields(seen) == {"cpu": 0.5, "gpus": [{"gpu": 0.25}]}
