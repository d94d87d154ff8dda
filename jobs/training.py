"""The training loop that the jobs share.

A job brings a model and its data; `Trainer` brings the rest: data parallelism, resuming, the
proof that every rank holds the same weights, losses, evaluation, reports, checkpoints.

    trainer = Trainer(w, build, data, settings)
    for step in trainer.steps(total):
        if step.number % 20 == 0:
            print(step.loss())
    trainer.save()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oneflow import nn

from jobs import engines, weights
from jobs.command import JobError
from jobs.gathering import gather_dense_layers
from jobs.order import Order
from jobs.scoring import Score, Source, evaluate
from launcher.worker import Context

if TYPE_CHECKING:
    from jobs.scoring import Batch

_DIFFERENT_ROUNDING = (
    "the workers' processors round differently: the gradients of all layers are summed over them, "
    "which takes longer"
)


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        batch_size: images in a step, over all workers.
        mode: "eager" or "graph".
        dtype: "float32", or "float16" on a GPU.
        seed: of the order of the images.
        cooldown: over so many last steps the learning rate falls evenly towards 0.
    """

    batch_size: int
    lr: float
    momentum: float = 0.0
    mode: str = "eager"
    dtype: str = "float32"
    seed: int = 0
    cooldown: int = 0


@dataclass(frozen=True)
class Step:
    """One step that is done.

    Attributes:
        number: from 1.
        epoch: the epoch that it belongs to, from 1.
        ends_epoch: it was its epoch's last.
        loss: returns the mean loss over the global batch, before this step changed the weights.
            Every rank calls it, or none.
    """

    number: int
    epoch: int
    ends_epoch: bool
    loss: Callable[[], float]


class Trainer:
    """Trains one model on this worker, together with all the other workers."""

    def __init__(
        self, w: Context, build: Callable[[], nn.Module], source: Source, settings: Settings,
        *, load: str | None = None,
    ) -> None:  # fmt: skip
        """Takes up the state to resume from, and proves that all ranks begin alike.

        Args:
            w: this worker.
            build: returns the model with its first weights.
            source: what to train on.
            settings: how.
            load: a checkpoint to take only the weights from.

        Raises:
            CheckpointError: a checkpoint is not whole.
            JobError: it does not fit, or the ranks' weights differ.
        """
        self._w, self._source, self._settings = w, source, settings
        self.order = Order(source.count, settings.batch_size, w.rank, w.world_size, settings.seed)
        self.device = engines.find_device(w.local_rank)
        engines.check_dtype(settings.dtype, settings.mode, self.device)
        self.done = 0
        resumed = w.load_checkpoint()
        model = build()
        loaded = resumed if resumed is not None else w.load_checkpoint(load) if load else None
        if loaded is not None:
            weights.load(model, loaded)
        if resumed is not None:
            self.done = self._resume_step(resumed)
        model = model.to(self.device)
        if gather_dense_layers(model, settings.batch_size) and w.rank == 0:
            print(_DIFFERENT_ROUNDING, flush=True)
        self._engine = self._make_engine(model, resumed)
        self._images_since, self._clock = 0, time.perf_counter()
        self.check_weights()

    def _resume_step(self, state: dict[str, Any]) -> int:
        if state["batch_size"] != self._settings.batch_size:
            raise JobError(
                f"the checkpoint was trained with a global batch of {state['batch_size']}, not "
                f"{self._settings.batch_size}: resume with --batch-size {state['batch_size']}"
            )
        return int(state["step"])

    def _make_engine(self, model: nn.Module, resumed: Any) -> engines.Engine:
        settings = self._settings
        key = "graph" if settings.mode == "graph" else "optimizer"
        optimizer = None if resumed is None else resumed.get(key)
        if resumed is not None and optimizer is None:
            raise JobError(f"the checkpoint was not trained with --mode {settings.mode}")
        if settings.mode == "graph":
            return engines.GraphEngine(
                model, lr=settings.lr, momentum=settings.momentum,
                half=settings.dtype == "float16", optimizer=optimizer,
            )  # fmt: skip
        return engines.EagerEngine(
            model, lr=settings.lr, momentum=settings.momentum, optimizer=optimizer
        )

    def steps(self, total: int) -> Iterator[Step]:
        """Trains up to the total-th step and yields after each."""
        epoch_steps = self.order.steps_per_epoch
        self._restart_clock()
        for batch in self._source.batches(self.order.training(self.done, total)):
            scale = min(1.0, (total - self.done) / max(self._settings.cooldown, 1))
            loss = self._engine.step(*self._here(batch), scale)
            self.done += 1
            self._images_since += self._settings.batch_size
            yield Step(
                number=self.done,
                epoch=self.order.epoch_of(self.done - 1) + 1,
                ends_epoch=self.done % epoch_steps == 0,
                loss=lambda loss=loss: self._engine.mean_loss(loss),  # type: ignore[misc]
            )

    def images_per_s(self) -> float:
        """Returns all workers' speed since the last call. Ask for the loss first: that waits."""
        speed = self._images_since / max(time.perf_counter() - self._clock, 1e-9)
        self._restart_clock()
        return speed

    def report(self, total: int, **values: float) -> None:
        """Reports a step: the shared values from rank 0, from the others how far they are."""
        self._w.report(step=self.done, total=total, **(values if self._w.rank == 0 else {}))

    def evaluate(self, source: Source, *, first: int = 0, last: int | None = None,
                 batch_size: int, classes: int = 0) -> Score:  # fmt: skip
        """Evaluates on the images first..last-1, sharded over the ranks, each counted once."""
        score = evaluate(
            self._engine.local_model(), source, self._w, self.device, first=first, last=last,
            batch_size=batch_size, classes=classes,
        )  # fmt: skip
        self._restart_clock()
        return score

    def save(self, **meta: Any) -> str:
        """Publishes model, optimizer and step, after proving that the ranks still agree."""
        self.check_weights()
        state = {**self._engine.state(), "step": self.done,
                 "batch_size": self._settings.batch_size}  # fmt: skip
        path = self._w.save_checkpoint(state, self.done, **meta)
        self._restart_clock()
        return path

    def check_weights(self) -> None:
        """Raises JobError, on every rank, where some rank holds other weights than rank 0."""
        weights.check_same(self._engine.parameters(), self.done)

    def _here(self, batch: Batch) -> Batch:
        return batch[0].to(self.device), batch[1].to(self.device)

    def _restart_clock(self) -> None:
        self._images_since, self._clock = 0, time.perf_counter()
