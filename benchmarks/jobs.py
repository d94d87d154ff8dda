"""Throughput, cost of the input pipeline and peak memory of the jobs, with one and two workers.

    python benchmarks/jobs.py --python RUNTIME/bin/python [--mnist mnist.npz] [--ofrecord DIR]

Steps on data and steps on one fixed batch take turns in blocks within one process, so that both
see the same machine; what is printed are medians over the blocks. The CPU settings are those
that flowlaunch gives its workers.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEFLOW_ENABLE_ONEDNN_OPTS": "0",
    "ONEFLOW_VM_COMPUTE_ON_WORKER_THREAD": "0",
    "OMP_NUM_THREADS": "1",
    "GLOG_minloglevel": "2",
}
# Steps in a block, blocks of each kind.
SIZES = {"lenet": (20, 6), "alexnet": (3, 4)}
# Job, workers, global batch. AlexNet's weights cost 0.7 s a step to update and to sum over the
# ranks whatever the batch, so it is measured with 12 images in all and with 12 a worker.
CASES = (("lenet", 1, 100), ("lenet", 2, 100),
         ("alexnet", 1, 12), ("alexnet", 2, 12), ("alexnet", 2, 24))  # fmt: skip
WARM_UP_BLOCKS = 2


class Alternating:
    """Gives blocks of batches from a source and blocks of one fixed batch in turn."""

    def __init__(self, source: Any, block: int) -> None:
        self._source, self._block = source, block
        self.count = source.count

    def batches(self, order: Iterator[Any]) -> Iterator[Any]:
        """Yields one batch for each of the order's."""
        order = list(order)  # type: ignore[assignment]
        fresh = self._source.batches(iter(order))
        fixed = next(fresh)
        for number in range(len(order)):  # type: ignore[arg-type]
            yield fixed if number // self._block % 2 else next(fresh)


def work(job: str, data: str | None, batch: int) -> None:
    """Trains as the job does and prints what rank 0 saw, as JSON."""
    sys.path.insert(0, str(ROOT))
    from launcher import worker

    w = worker.context()
    if w.world_size > 1:
        from jobs.heap import keep_freed_memory

        keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        source, build = _prepare(job, data, Path(folder))
        from jobs.training import Settings, Trainer

        block, blocks = SIZES[job]
        lr = 0.1 if job == "lenet" else 0.002
        trainer = Trainer(w, build, Alternating(source, block), Settings(batch, lr))
        times = _time_blocks(trainer, block, 2 * blocks + WARM_UP_BLOCKS)[WARM_UP_BLOCKS:]
    if w.rank == 0:
        peak = next(
            int(line.split()[1]) * 1024
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        print(json.dumps({"data_s": times[::2], "fixed_s": times[1::2], "peak": peak}))


def _prepare(job: str, data: str | None, folder: Path) -> tuple[Any, Any]:
    if job == "lenet":
        from jobs import mnist
        from jobs.lenet import DigitSource

        source: Any = DigitSource(mnist.load(data).train)
        return source, lambda: _models().lenet(dropout=0.5, seed=0)
    from jobs import alexnet
    from jobs.photographs import Photographs

    if data is None:
        data = str(folder / "shapes")
        alexnet.draw(Path(data), seed=1)
    source = Photographs(Path(data), alexnet.CLASSES)
    return source, lambda: _models().alexnet(dropout=0.5, seed=0, init="default")


def _models() -> Any:
    from jobs import models

    return models


def _time_blocks(trainer: Any, block: int, blocks: int) -> list[float]:
    times, start = [], time.perf_counter()
    for step in trainer.steps(block * blocks):
        if step.number % block == 0:
            step.loss()
            now = time.perf_counter()
            times.append(now - start)
            start = now
    return times


def measure(python: str, job: str, data: str | None, workers: int, batch: int) -> dict[str, Any]:
    """Runs one job on so many workers of this machine; returns rank 0's figures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(workers)}
    command = [python, __file__, "--worker", job, "--batch", str(batch)]
    command += ["--data", data] if data else []
    started = []
    for rank in range(workers):
        place = {**world, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        env = {**os.environ, **SETTINGS, **(place if workers > 1 else {})}
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=300)[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{job} on {workers} workers failed")
    found: dict[str, Any] = json.loads(outputs[0].splitlines()[-1])
    return found


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", help="the OneFlow runtime's interpreter")
    parser.add_argument("--mnist", help="mnist.npz (digits are drawn)")
    parser.add_argument("--ofrecord", help="OFRecord parts (shapes are drawn)")
    parser.add_argument("--only", choices=tuple(SIZES), help="measure one of the jobs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.data, options.batch)
        return
    print("job      workers  batch  images/s  data/fixed  peak MB")
    for job, workers, batch in CASES:
        if options.only in (None, job):
            data = options.mnist if job == "lenet" else options.ofrecord
            found = measure(options.python or sys.executable, job, data, workers, batch)
            print(_row(job, workers, batch, found), flush=True)


def _row(job: str, workers: int, batch: int, found: dict[str, Any]) -> str:
    step_s, fixed_s = statistics.median(found["data_s"]), statistics.median(found["fixed_s"])
    speed = SIZES[job][0] * batch / step_s
    return (
        f"{job:<8} {workers:>7}  {batch:>5}  {speed:>8.1f}  {step_s / fixed_s:>10.3f}"
        f"  {found['peak'] / 1e6:>7.0f}"
    )


if __name__ == "__main__":
    main()
