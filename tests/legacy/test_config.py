"""flow.config and the placements, checked against the launch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.legacy.material import run_legacy, run_legacy_well

pytestmark = [pytest.mark.oneflow, pytest.mark.timeout(300)]

_SCRIPT = """
import oneflow as flow
import oneflow.typing as tp
import numpy as np

@flow.global_function()
def job(x: tp.Numpy.Placeholder((3, 4))) -> tp.Numpy:
    {scope}
        return flow.nn.relu(x)

{said}
print(job(np.ones((3, 4))).sum())
"""
_MACHINES = {"FLOWLAUNCH_MACHINES": '[{"addr": "10.0.0.1"}, {"addr": "10.0.0.2"}]'}
_BOTH = 'flow.config.machine([{"addr": "10.0.0.1"}, {"addr": "10.0.0.2"}])'


def _text(said: str, scope: str = "if True:") -> str:
    return _SCRIPT.format(said=said, scope=scope)


def test_a_script_that_says_what_the_launch_says_runs(tmp_path: Path) -> None:
    # A port of its own is what a script for one machine says; without machines it binds nobody.
    said = f"flow.config.ctrl_port(9788); flow.config.gpu_device_num(1); {_BOTH}"
    assert run_legacy_well(tmp_path, _text(said), env=_MACHINES) == "12.0\n"


@pytest.mark.parametrize(
    ("said", "workers", "words"),
    [
        (
            "flow.config.gpu_device_num(8)",
            1,
            "config.gpu_device_num(8), machine 0 has 1 worker(s): start with --nproc-per-node 8",
        ),
        (
            'flow.config.machine([{"addr": "192.168.1.15"}])',
            1,
            "config.machine(192.168.1.15), this launch has 10.0.0.1, 10.0.0.2",
        ),
        (f"{_BOTH}; flow.config.ctrl_port(9)", 2, "config.ctrl_port(9), this launch has"),
    ],
)
def test_a_contradiction_is_an_error(tmp_path: Path, said: str, workers: int, words: str) -> None:
    ended = run_legacy(tmp_path, _text(said), workers_count=workers, env=_MACHINES)
    assert ended[0].code == 1
    assert words in ended[0].err


def test_the_last_port_counts_and_none_after_a_restart(tmp_path: Path) -> None:
    said = f"flow.config.ctrl_port(9); {_BOTH}"
    env = {**_MACHINES, "FLOWLAUNCH_ATTEMPT": "1"}
    assert run_legacy_well(tmp_path, _text(said), workers_count=2, env=env) == "12.0\n"


def test_a_device_that_the_launch_lacks_is_named(tmp_path: Path) -> None:
    scope = 'with flow.scope.placement("gpu", "0:0-2"):'
    ended = run_legacy(tmp_path, _text("", scope), workers_count=2)
    assert ended[0].code == 1
    assert 'places on "0:0-2", but this launch has no worker 0:2' in ended[0].err


@pytest.mark.parametrize("devices", ["0:1", "0:0-1", "0:1-2"])
def test_every_rank_has_the_result_of_those_that_compute(tmp_path: Path, devices: str) -> None:
    scope = f'with flow.scope.placement("gpu", "{devices}"):'
    said = "import sys; sys.stdout = sys.stderr"
    ended = run_legacy(tmp_path, _text(said, scope), workers_count=3)
    assert [worker.code for worker in ended] == [0, 0, 0]
    assert ["12.0" in worker.err for worker in ended] == [True, True, True]
