"""From what the script pins to devices to the ranks that compute."""

from __future__ import annotations

import contextlib
import re
import sys
import typing

import numpy as np
import oneflow as flow

from launcher.legacy.blob import current_trace, is_recording
from launcher.legacy.launch import ALL, Launch
from launcher.legacy.mesh import Mesh
from launcher.legacy.unsupported import LegacyError

# Rank by rank: the machine, and the index of the worker on it (the old device number).
Layout = typing.Tuple[typing.Tuple[int, int], ...]
Scope = typing.Tuple[str, typing.Tuple[str, ...]]
_TAGS = ("gpu", "cuda", "cpu")
_DEVICE_IDS = re.compile(r"(\d+):(\d+)(?:-(\d+))?")


@contextlib.contextmanager
def placement(
    device_tag: str, machine_device_ids: typing.Union[str, typing.Sequence[str]]
) -> typing.Iterator[None]:
    """Says where what is inside is computed: ``"gpu", "0:0-3"`` is machine 0, devices 0 to 3.

    Raises:
        LegacyError: the tag or an id is none of the old API.
    """
    ids = (machine_device_ids,) if isinstance(machine_device_ids, str) else machine_device_ids
    if device_tag not in _TAGS or not all(_DEVICE_IDS.fullmatch(one) for one in ids):
        raise LegacyError(
            'oneflow.scope.placement({!r}, {!r}): expected "gpu" or "cpu", and ids like "0:0" or '
            '"0:0-3"'.format(device_tag, machine_device_ids)
        )
    if is_recording():
        current_trace("oneflow.scope.placement").scopes.append((device_tag, tuple(ids)))
    yield


def read_layout(launch: Launch) -> Layout:
    """Returns where each rank sits. Every rank has to ask: it is gathered from all."""
    if launch.world_size == 1:
        return ((0, 0),)
    everywhere = flow.placement("cpu", list(range(launch.world_size)))
    mine = flow.tensor(np.array([launch.node_rank], dtype=np.int64))
    dealt = mine.to_global(placement=everywhere, sbp=flow.sbp.split(0))
    machines = dealt.to_global(sbp=flow.sbp.broadcast).to_local().numpy().tolist()
    return tuple((m, machines[:rank].count(m)) for rank, m in enumerate(machines))


def ranks_of(device_ids: str, layout: Layout) -> typing.List[int]:
    """Returns the ranks that one id of the script names.

    >>> ranks_of("1:0-1", ((0, 0), (1, 0), (1, 1)))
    [1, 2]

    Raises:
        LegacyError: the launch has no such worker.
    """
    match = _DEVICE_IDS.fullmatch(device_ids)
    assert match is not None, device_ids
    machine, first = int(match.group(1)), int(match.group(2))
    devices = range(first, int(match.group(3) or first) + 1)
    missing = [device for device in devices if (machine, device) not in layout]
    if missing:
        raise LegacyError(
            'the script places on "{}", but this launch has no worker {}:{}; start more workers '
            "(--nproc-per-node), or use --placement all".format(device_ids, machine, missing[0])
        )
    return [layout.index((machine, device)) for device in devices]


def choose_mesh(scopes: typing.Sequence[typing.Sequence[Scope]], launch: Launch) -> Mesh:
    """Returns where the script's job functions are computed.

    Args:
        scopes: of each job function, what its body pins. One that pins nothing is for all ranks.
        launch: whose placement `ALL` makes every function one for all ranks.
    """
    everybody = range(launch.world_size)
    free = launch.placement == ALL or any(not pinned for pinned in scopes)
    if free or launch.world_size == 1:
        ranks = set(everybody)
    else:
        layout = read_layout(launch)
        ids = [one for pinned in scopes for _, group in pinned for one in group]
        ranks = {rank for one in ids for rank in ranks_of(one, layout)}
    mesh = Mesh(sorted(ranks), _device(scopes, launch), launch.rank, launch.world_size)
    if len(mesh.ranks) < launch.world_size:
        _say(
            launch,
            "the script pins its work to rank {} of {} workers, the others only wait; "
            "--placement all spreads it".format(", ".join(map(str, mesh.ranks)), launch.world_size),
        )
    return mesh


def _device(scopes: typing.Sequence[typing.Sequence[Scope]], launch: Launch) -> str:
    tags = {tag for pinned in scopes for tag, _ in pinned}
    if tags == {"cpu"}:
        return "cpu"
    if flow.cuda.is_available():
        return "cuda"
    _say(launch, 'there is no GPU here: what the script places on "gpu" runs on the CPU')
    return "cpu"


def _say(launch: Launch, words: str) -> None:
    if launch.rank == 0:
        sys.stderr.write("flowlaunch --legacy-api: {}\n".format(words))
        sys.stderr.flush()
