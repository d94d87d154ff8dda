"""What an agent reports of its node, as the launcher's own values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.core.facts import Address, DataFacts, Leftover, NodeFacts, OneFlowFacts

_PLAIN = (
    "hostname", "user", "cores", "memory_bytes", "memory_free_bytes", "shm_free_bytes",
    "home_free_bytes", "cache_free_bytes", "open_files", "processes", "gpu_problem", "same",
)  # fmt: skip


def read_facts(found: Mapping[str, Any]) -> NodeFacts:
    """Returns a node's facts from what its agent said (see `launcher.agent.facts`)."""
    interpreter = found.get("interpreter") or {}
    return NodeFacts(
        **{key: found[key] for key in _PLAIN if found.get(key) is not None},
        login_address=found.get("login_address") or "",
        addresses=tuple(
            Address(row["name"], row["address"], row["prefix"], row["mbits"])
            for row in found.get("addresses", ())
        ),
        gpus=tuple(gpu["model"] for gpu in found.get("gpus", ())),
        oneflow=_oneflow(found.get("oneflow")),
        leftovers=tuple(Leftover(**row) for row in found.get("leftovers", ())),
        data=tuple(_data(row) for row in found.get("data", ())),
        interpreter=interpreter.get("minor", ""),
    )


def _oneflow(found: Mapping[str, Any] | None) -> OneFlowFacts | None:
    if found is None:
        return None
    known = ("path", "python", "oneflow", "numpy", "error", "missing")
    return OneFlowFacts(**{key: found[key] for key in known if found.get(key)})


def _data(found: Mapping[str, Any]) -> DataFacts:
    at = found.get("at")
    where = f" ({at})" if at and at != found["path"] else ""
    known = ("path", "kind", "files", "bytes", "sha256")
    error = f"{found['error']}{where}" if found.get("error") else ""
    return DataFacts(**{key: found[key] for key in known if key in found}, error=error)
