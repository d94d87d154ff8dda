"""How busy a node was, as its agent measured. What a node could not tell is None."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_NUMBERS = (
    "cpu", "load", "memory_bytes", "memory_used_bytes", "disk_free_bytes",
    "read_bytes_per_s", "write_bytes_per_s", "received_bytes_per_s", "sent_bytes_per_s",
)  # fmt: skip


@dataclass(frozen=True)
class GpuUsage:
    """One GPU; `gpu` is the share of the time, 0..1, in which something ran on it."""

    gpu: float | None = None
    memory_bytes: float | None = None
    memory_used_bytes: float | None = None


@dataclass(frozen=True)
class Usage:
    """One node over the last two seconds; `cpu` is the share of all cores that was busy, 0..1."""

    cpu: float | None = None
    load: float | None = None
    memory_bytes: float | None = None
    memory_used_bytes: float | None = None
    disk_free_bytes: float | None = None
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None
    received_bytes_per_s: float | None = None
    sent_bytes_per_s: float | None = None
    gpus: tuple[GpuUsage, ...] = ()

    @property
    def memory(self) -> float | None:
        """The share of the memory that is used, 0..1."""
        return _share(self.memory_used_bytes, self.memory_bytes)

    @property
    def gpu(self) -> float | None:
        """How busy the GPUs are, their mean, 0..1."""
        return _mean([gpu.gpu for gpu in self.gpus])

    @property
    def gpu_memory(self) -> float | None:
        """The share of the fullest GPU's memory that is used, 0..1."""
        shares = [_share(gpu.memory_used_bytes, gpu.memory_bytes) for gpu in self.gpus]
        return max((share for share in shares if share is not None), default=None)


def usage_of(fields: object) -> Usage:
    """Returns what a node measured; whatever is not as it should be counts as not told.

    >>> usage_of({"cpu": 0.5, "gpus": [{"gpu": 0.9}], "load": "high"}).gpu
    0.9
    """
    if not isinstance(fields, Mapping):
        return Usage()
    gpus = fields.get("gpus")
    known = [_gpu(gpu) for gpu in gpus[:64]] if isinstance(gpus, list) else []
    return Usage(**{name: _number(fields.get(name)) for name in _NUMBERS}, gpus=tuple(known))


def usage_fields(usage: Usage) -> dict[str, object]:
    """Returns a measurement as JSON has it, without what was not told."""
    fields: dict[str, object] = {name: getattr(usage, name) for name in _NUMBERS}
    if usage.gpus:
        fields["gpus"] = [
            {name: value for name, value in vars(gpu).items() if value is not None}
            for gpu in usage.gpus
        ]
    return {name: value for name, value in fields.items() if value is not None}


def _gpu(fields: object) -> GpuUsage:
    if not isinstance(fields, Mapping):
        return GpuUsage()
    return GpuUsage(
        _number(fields.get("gpu")),
        _number(fields.get("memory_bytes")),
        _number(fields.get("memory_used_bytes")),
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
