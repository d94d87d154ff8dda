"""What run.json says of a run: its state in plain values."""

from __future__ import annotations

from typing import Any

from launcher.core import state as core
from launcher.core.standing import first_error


def standing(state: core.RunState) -> dict[str, Any]:
    """Returns what run.json says of a state."""
    return {
        "state": state.phase.value,
        "stop_reason": state.stop_reason.value if state.stop_reason else None,
        "nodes": {
            name: {"state": node.phase.value, "problem": node.problem}
            for name, node in state.nodes.items()
        },
        "workers": {
            str(rank): {
                "node": worker.node,
                "state": worker.phase.value,
                "exit_code": worker.exit.exit_code if worker.exit else None,
                "signal": worker.exit.signal if worker.exit else 0,
            }
            for rank, worker in state.workers.items()
        },
        "missing": list(state.missing),
        "first_error": first_error(state),
    }
