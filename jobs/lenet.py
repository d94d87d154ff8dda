"""LeNet on MNIST, as its tutorial describes it, on any number of workers.

    flowlaunch run jobs/lenet.py -- --data mnist.npz     # or: python jobs/lenet.py …
    python jobs/lenet.py eval --checkpoint runs/<id> --data mnist.npz --confusion
    python jobs/lenet.py predict --checkpoint runs/<id> 9.png

Without --data it trains on digits that it draws.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python jobs/lenet.py`

from jobs import command, handwriting, mnist
from jobs.command import DataError
from jobs.order import Indexes, Order
from jobs.saved import find_checkpoint
from launcher import worker

# oneflow waits for all workers when it is imported: only once the arguments and data are good.
if TYPE_CHECKING:
    from jobs.scoring import Batch, Score
    from jobs.training import Step, Trainer

_DRY_RUN_STEPS = 5
_EVAL_BATCH = 200
_LOSS_EVERY = 20
_DRAWN_EPOCHS = 4
_EPOCHS = 20


class DigitSource:
    """Digits as the network takes them."""

    def __init__(self, digits: mnist.Digits) -> None:
        self._digits = digits

    @property
    def count(self) -> int:
        """How many images there are."""
        return self._digits.count

    def batches(self, order: Iterator[Indexes]) -> Iterator[Batch]:
        """Yields images (n, 1, 28, 28) and labels (n,)."""
        import oneflow as flow

        for indexes in order:
            images = mnist.normalized(self._digits.images[indexes])
            yield flow.tensor(images), flow.tensor(self._digits.labels[indexes])


def main(argv: Sequence[str]) -> int:
    """Runs train, eval or predict; returns the exit code."""
    options = _parse(argv)
    result: int = options.run(options)
    return result


def train(options: argparse.Namespace) -> int:
    """Trains, with the test accuracy and a checkpoint after each epoch, or more of the latter."""
    w = worker.context()
    digits = mnist.load(options.data)
    epochs = options.epochs or (_EPOCHS if options.data else _DRAWN_EPOCHS)
    order = Order(digits.train.count, options.batch_size, w.rank, w.world_size, options.seed)
    total = _DRY_RUN_STEPS if w.dry_run else epochs * order.steps_per_epoch
    load = find_checkpoint(options.load) if options.load else None

    from jobs.models import lenet
    from jobs.training import Settings, Trainer

    cooldown = 0 if w.dry_run else options.cooldown * order.steps_per_epoch
    settings = Settings(
        options.batch_size, options.lr, options.momentum, options.mode, seed=options.seed,
        cooldown=cooldown,
    )  # fmt: skip
    trainer = Trainer(
        w,
        lambda: lenet(dropout=options.dropout, seed=options.seed),
        DigitSource(digits.train),
        settings,
        load=load,
    )
    test = DigitSource(digits.test.first(_EVAL_BATCH) if w.dry_run else digits.test)
    if w.rank == 0:
        what = f"{digits.name} ({digits.train.count} images)"
        print(f"training on {what} with {w.world_size} workers", flush=True)
        if trainer.done:
            print(f"going on after step {trainer.done} of {total}", flush=True)
    for step in trainer.steps(total):
        if step.number % _LOSS_EVERY == 0 or step.number == total:
            _tell_loss(trainer, step, total, w.rank)
        if step.ends_epoch or step.number == total:
            _end_epoch(trainer, step, test, total, w.rank)
        elif options.save_every and step.number % options.save_every == 0:
            trainer.save(epoch=step.epoch)
    return 0


def _tell_loss(trainer: Trainer, step: Step, total: int, rank: int) -> None:
    loss = step.loss()
    speed = trainer.images_per_s()
    trainer.report(total, loss=loss, images_per_s=speed, epoch=step.epoch)
    if rank == 0:
        place = f"epoch {step.epoch} step {step.number}/{total}"
        print(f"{place} loss {loss:.7f} {speed:.0f} images/s", flush=True)


def _end_epoch(trainer: Trainer, step: Step, test: DigitSource, total: int, rank: int) -> None:
    score = trainer.evaluate(test, batch_size=_EVAL_BATCH)
    trainer.report(total, accuracy=score.accuracy, test_loss=score.loss, epoch=step.epoch)
    trainer.save(accuracy=score.accuracy, epoch=step.epoch)
    if rank == 0:
        found = f"{score.accuracy:.2%} ({score.top1} of {score.count})"
        print(f"epoch {step.epoch} test accuracy: {found}", flush=True)


def evaluate(options: argparse.Namespace) -> int:
    """Prints the accuracy of a checkpoint over the whole test set."""
    w = worker.context()
    digits = mnist.load(options.data)
    path = _checkpoint(w, options.checkpoint)
    model = _load_model(w, path)

    from jobs.engines import find_device
    from jobs.scoring import evaluate as score_all

    device = find_device(w.local_rank)
    score = score_all(
        model.to(device), DigitSource(digits.test), w, device,
        batch_size=_EVAL_BATCH, classes=10,
    )  # fmt: skip
    w.report(accuracy=score.accuracy)
    if w.rank == 0:
        print(f"{path} on {digits.name} ({score.count} images)")
        print(f"accuracy: {score.accuracy:.1%}", flush=True)
        if options.confusion:
            print(_confusion(score), flush=True)
    return 0


def _confusion(score: Score) -> str:
    lines = ["label\\read" + "".join(f"{digit:>6}" for digit in range(10))]
    for digit, row in enumerate(score.table):
        lines.append(f"{digit:>10}" + "".join(f"{count:>6}" for count in row))
    return "\n".join(lines)


def predict(options: argparse.Namespace) -> int:
    """Prints what each picture shows; a file that is none is named, the others still read."""
    w = worker.context()
    readable, code = [], 0
    for path in options.images:
        try:
            readable.append((path, handwriting.read_digit(Path(path))))
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            code = command.EXIT_DATA
    if readable:
        model = _load_model(w, _checkpoint(w, options.checkpoint))
        model.eval()
        for path, image in readable if w.rank == 0 else ():
            digit, certainty = _read(model, image)
            print(f"{path}: {digit} ({certainty:.3f})", flush=True)
    return code


def _read(model: Any, image: handwriting.Pixels) -> tuple[int, float]:
    import oneflow as flow

    with flow.no_grad():
        odds = flow.softmax(model(flow.tensor(mnist.normalized(image[None]))), dim=1).numpy()[0]
    return int(odds.argmax()), float(odds.max())


def _checkpoint(w: worker.Context, named: str | None) -> str:
    return find_checkpoint(named or w.resume_from or w.checkpoint_dir)


def _load_model(w: worker.Context, path: str) -> Any:
    state = w.load_checkpoint(path)

    from jobs import weights
    from jobs.models import lenet

    model = lenet(dropout=0, seed=0)
    weights.load(model, state)
    return model


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = command.Parser(prog="lenet.py", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    _add_train(commands)
    test = commands.add_parser("eval", help="the accuracy of a checkpoint over the test set")
    test.set_defaults(run=evaluate)
    test.add_argument("--confusion", action="store_true", help="also the table of what was read")
    test.add_argument("--data", help="as for train (drawn digits)")
    read = commands.add_parser("predict", help="reads pictures of digits")
    read.set_defaults(run=predict)
    read.add_argument("images", nargs="+", metavar="IMAGE")
    for each in (test, read):
        each.add_argument(
            "--checkpoint", metavar="RUN|DIR", help="a run, or a directory (what --resume gives)"
        )
    named = argv and argv[0] in (*commands.choices, "-h", "--help")
    return parser.parse_args(list(argv) if named else ["train", *argv])


def _add_train(commands: Any) -> None:
    add = commands.add_parser("train", help="trains (the default)").add_argument
    commands.choices["train"].set_defaults(run=train)
    add("--data", metavar="PATH", help="mnist.npz or a folder of idx files (digits are drawn)")
    add("--epochs", type=command.positive, help=f"({_EPOCHS}; {_DRAWN_EPOCHS} for drawn digits)")
    add("--batch-size", type=command.positive, default=100, help="over all workers (%(default)s)")
    add("--lr", type=command.rate, default=0.1, help="(%(default)s)")
    add("--cooldown", type=command.natural, default=1, metavar="EPOCHS", help="over the last ones "
        "the rate falls to 0 (%(default)s; 0 is the tutorial's constant rate)")  # fmt: skip
    add("--momentum", type=command.fraction, default=0.0, help="(%(default)s)")
    add("--dropout", type=command.fraction, default=0.5, help="(%(default)s)")
    add("--seed", type=int, default=0, help="of weights and order (%(default)s)")
    add("--mode", choices=("eager", "graph"), default="eager", help="(%(default)s)")
    add("--save-every", type=command.positive, metavar="STEPS", help="a checkpoint also each so "
        "many steps (one an epoch)")  # fmt: skip
    add("--load", metavar="RUN|DIR", help="begin with this checkpoint's weights")


if __name__ == "__main__":
    command.run(main)
