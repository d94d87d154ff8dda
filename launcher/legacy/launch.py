"""What the launcher told this worker, read from its environment."""

from __future__ import annotations

import json
import os
import typing
from dataclasses import dataclass

SCRIPT = "script"
ALL = "all"
PLACEMENTS = (SCRIPT, ALL)
PLACEMENT_VARIABLE = "FLOWLAUNCH_LEGACY_PLACEMENT"


@dataclass(frozen=True)
class Launch:
    """One worker's place in the launch.

    Attributes:
        node_rank: the machine's index, in the order of `machines`.
        machines: the addresses of the machines, or () where the launcher did not say.
        ctrl_port: the rendezvous port, or None where there is no rendezvous.
        first_attempt: False after a restart, which may use another port.
        placement: `SCRIPT` keeps what the script pins; `ALL` spreads it over all workers.
    """

    rank: int
    world_size: int
    node_rank: int
    machines: typing.Tuple[str, ...]
    ctrl_port: typing.Optional[int]
    first_attempt: bool
    placement: str


def read_launch(environ: typing.Mapping[str, str] = os.environ) -> Launch:
    """Returns this worker's place; without a launcher, rank 0 of 1.

    >>> read_launch({}).world_size
    1
    """
    machines = json.loads(environ.get("FLOWLAUNCH_MACHINES") or "[]")
    port = environ.get("MASTER_PORT")
    return Launch(
        # By hand, importing oneflow sets RANK to -1 for the only worker.
        rank=max(int(environ.get("RANK", "0")), 0),
        world_size=int(environ.get("WORLD_SIZE", "1")),
        node_rank=int(environ.get("FLOWLAUNCH_NODE_RANK", "0")),
        machines=tuple(str(machine["addr"]) for machine in machines),
        ctrl_port=int(port) if port else None,
        first_attempt=environ.get("FLOWLAUNCH_ATTEMPT", "0") in ("", "0"),
        placement=environ.get(PLACEMENT_VARIABLE, SCRIPT),
    )
