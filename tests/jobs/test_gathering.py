"""Dense layers on the whole batch: the same training for any number of workers, or none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.workers import run_job

pytestmark = pytest.mark.oneflow

_TRAIN = """
import json, os, sys
mode, dropout, batch, odd_rank = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if os.environ.get("RANK") == odd_rank:
    os.environ["OPENBLAS_CORETYPE"] = "Nehalem"  # a processor without fused multiply-add
from launcher import worker
from jobs import mnist
from jobs.lenet import DigitSource
w = worker.context()
data = DigitSource(mnist.load(None).train)
from jobs.gathering import GatheringFlatten
from jobs.models import lenet
from jobs.training import Settings, Trainer
models = []
def build():
    models.append(lenet(dropout=dropout, seed=0))
    return models[-1]
trainer = Trainer(w, build, data, Settings(batch, 0.01, mode=mode))
losses = [step.loss() for step in trainer.steps(3)]
trainer.check_weights()
gathers = [layer.gathers for layer in models[0] if isinstance(layer, GatheringFlatten)]
print(json.dumps({"gathers": gathers, "losses": losses}))
"""


def _train(
    place: Path, workers: int, mode: str = "eager", dropout: float = 0.0, batch: int = 100,
    odd_rank: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns what each rank found, and rank 0's output beside it."""
    argv = [mode, str(dropout), str(batch), str(odd_rank)]
    ended = run_job(place, "-c", _TRAIN, *argv, workers=workers)
    assert [worker.code for worker in ended] == [0] * workers, ended
    return [{**json.loads(worker.out.splitlines()[-1]), "out": worker.out} for worker in ended]


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_dropout_is_the_same_on_one_worker_and_on_three(tmp_path: Path, mode: str) -> None:
    (alone,) = _train(tmp_path, 1, mode, dropout=0.5)
    three = _train(tmp_path, 3, mode, dropout=0.5)
    assert [rank["gathers"] for rank in three] == [[True]] * 3
    for rank in three:
        assert rank["losses"] == pytest.approx(alone["losses"], rel=1e-5)


def test_ranks_that_round_differently_sum_their_gradients(tmp_path: Path) -> None:
    """Gathering would let their weights drift apart, which the job's own proof would find."""
    (alone,) = _train(tmp_path, 1)
    two = _train(tmp_path, 2, odd_rank=1)
    assert [rank["gathers"] for rank in two] == [[False]] * 2
    assert "the workers' processors round differently" in two[0]["out"]
    for rank in two:
        assert rank["losses"] == pytest.approx(alone["losses"], rel=1e-5)


def test_a_large_batch_is_not_gathered(tmp_path: Path) -> None:
    two = _train(tmp_path, 2, batch=300)
    assert [rank["gathers"] for rank in two] == [[False]] * 2
    assert "round differently" not in two[0]["out"]
