"""AlexNet on OFRecord photographs, as its tutorial describes it, on any number of workers.

    flowlaunch run jobs/alexnet.py --cluster cluster.yaml -- -i 100 -t TRAIN_DIR -e EVAL_DIR
    python jobs/alexnet.py -i 20 -load runs/<id> -t TRAIN_DIR -e EVAL_DIR

Data sets are made with `python -m jobs.ofrecord make`. Without -t it trains on drawn shapes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python jobs/alexnet.py`

from jobs import command, drawn, records
from jobs.order import Order
from jobs.photographs import Photographs
from jobs.saved import find_checkpoint
from launcher import worker

# oneflow waits for all workers when it is imported: only once the arguments and data are good.
if TYPE_CHECKING:
    from jobs.scoring import Score
    from jobs.training import Trainer

CLASSES = 1001
_DRAWN_PARTS = 8
_DRAWN_COUNT = 64
_DRY_RUN_STEPS = 2
_ROW = "{:>12}  {:>12}  {:>12.10f}"


def main(argv: Sequence[str]) -> int:
    """Trains and evaluates; returns the exit code."""
    options = _parse(argv)
    w = worker.context()
    _place_checkpoints(w, options)
    load = find_checkpoint(options.model_load_dir) if options.model_load_dir else None
    with _folders(options) as (train_dir, eval_dir, name):
        photographs = Photographs(train_dir, CLASSES)
        test = Photographs(eval_dir, CLASSES)
        Order(photographs.count, options.batch_size, w.rank, w.world_size, options.seed)
        if w.rank == 0:
            what = f"{name} ({photographs.count} images)"
            print(f"training on {what} with {w.world_size} workers", flush=True)
        _run(w, options, photographs, test, load)
    return 0


def _run(
    w: worker.Context, options: argparse.Namespace, photographs: Photographs, test: Photographs,
    load: str | None,
) -> None:  # fmt: skip
    from jobs.models import alexnet
    from jobs.training import Settings, Trainer

    settings = Settings(
        options.batch_size, options.lr, options.momentum, options.mode, options.dtype, options.seed
    )
    trainer = Trainer(
        w,
        lambda: alexnet(dropout=options.dropout, seed=options.seed, init=options.init),
        photographs,
        settings,
        load=load,
    )
    total = min(options.iter_num, _DRY_RUN_STEPS) if w.dry_run else options.iter_num
    _train(w, options, trainer, test, total)
    last = options.batch_size if w.dry_run else test.count
    score = trainer.evaluate(test, last=min(last, test.count), batch_size=_share(w, options))
    trainer.report(total, top1=score.top1 / score.count, top5=score.top5 / score.count)
    if w.rank == 0:
        print(_summary(score), flush=True)


def _train(
    w: worker.Context, options: argparse.Namespace, trainer: Trainer, test: Photographs, total: int
) -> None:
    if w.rank == 0:
        print("{:>12}  {:>12}  {:>12}".format("iter", "loss type", "loss value"), flush=True)
    for step in trainer.steps(total):
        loss = step.loss()
        speed = trainer.images_per_s()
        trainer.report(total, loss=loss, images_per_s=speed, epoch=step.epoch)
        if w.rank == 0:
            print(_ROW.format(step.number - 1, "train loss:", loss), flush=True)
        if step.number % options.eval_every == 0:
            score = _evaluate_batch(w, options, trainer, test, step.number // options.eval_every)
            trainer.report(total, eval_loss=score.loss)
            if w.rank == 0:
                print(_ROW.format(step.number - 1, "eval loss:", score.loss), flush=True)
        if step.number % options.save_every == 0 or step.number == total:
            trainer.save(loss=loss)


def _evaluate_batch(
    w: worker.Context, options: argparse.Namespace, trainer: Trainer, test: Photographs, turn: int
) -> Score:
    """Evaluates one global batch, as the tutorial does; each turn takes the next one."""
    first = (turn - 1) * options.batch_size % test.count
    last = min(first + options.batch_size, test.count)
    return trainer.evaluate(test, first=first, last=last, batch_size=_share(w, options))


def _share(w: worker.Context, options: argparse.Namespace) -> int:
    size: int = options.batch_size
    return -(-size // w.world_size)


def _summary(score: Score) -> str:
    return (
        f"evaluated {score.count} images: loss {score.loss:.4f}, "
        f"top-1 {score.top1 / score.count:.2%}, top-5 {score.top5 / score.count:.2%}"
    )


def _place_checkpoints(w: worker.Context, options: argparse.Namespace) -> None:
    if options.model_save_dir is None:
        return
    if not w.run_id:
        w.checkpoint_dir = str(Path(options.model_save_dir).resolve())
    elif w.rank == 0:
        print("-save counts by hand only: flowlaunch brings checkpoints to its run", flush=True)


@contextmanager
def _folders(options: argparse.Namespace) -> Iterator[tuple[Path, Path, str]]:
    """Gives the folders to train on and to evaluate with, and what to call the images."""
    if options.train_dir is not None:
        train = Path(options.train_dir)
        yield train, Path(options.eval_dir or train), f"photographs from {train}"
        return
    with tempfile.TemporaryDirectory(prefix="drawn-shapes-") as folder:
        for name, seed in (("train", 1), ("eval", 2)):
            draw(Path(folder) / name, seed)
        evaluated = Path(options.eval_dir) if options.eval_dir else Path(folder) / "eval"
        yield Path(folder) / "train", evaluated, "drawn shapes"


def draw(folder: Path, seed: int) -> None:
    """Writes the drawn shapes as a data set of eight parts."""
    folder.mkdir()
    messages = [
        records.frame(records.encode(jpeg, label))
        for jpeg, label in drawn.shapes(_DRAWN_COUNT, seed)
    ]
    for part in range(_DRAWN_PARTS):
        (folder / records.part_name(part)).write_bytes(b"".join(messages[part::_DRAWN_PARTS]))


class _AskManifest(argparse.Action):
    """Answers an option of the tutorial with where its matter is said now."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        """Ends the process with the answer, which is the option's `metavar`."""
        parser.error(f"{rest[2]} is not the job's to say any more: {self.const}")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = command.Parser(prog="alexnet.py", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("-i", "--iter_num", type=command.positive, default=10, help="iterations (%(default)s)")
    add("-t", "--train_dir", metavar="DIR", help="OFRecord parts (shapes are drawn)")
    add("-e", "--eval_dir", metavar="DIR", help="OFRecord parts (the training set)")
    add("-load", "--model_load_dir", metavar="RUN|DIR", help="begin with this checkpoint's weights")
    add("-save", "--model_save_dir", metavar="DIR", help="by hand: where to (./checkpoints)")
    add("--batch-size", type=command.positive, default=12, help="over all workers (%(default)s)")
    add("--lr", type=command.rate, default=0.002, help="(%(default)s)")
    add("--momentum", type=command.fraction, default=0.0, help="(%(default)s)")
    add("--dropout", type=command.fraction, default=0.5, help="(%(default)s)")
    add("--seed", type=int, default=0, help="of weights and order (%(default)s)")
    add("--init", choices=("default", "tutorial"), default="default", help="(%(default)s)")
    add("--dtype", choices=("float32", "float16"), default="float32", help="(%(default)s)")
    add("--mode", choices=("eager", "graph"), default="eager", help="(%(default)s)")
    add("--eval-every", type=command.positive, default=10, help="iterations (%(default)s)")
    add("--save-every", type=command.positive, default=100, help="iterations (%(default)s)")
    _add_answered(parser)
    return parser.parse_args(argv)


def _add_answered(parser: argparse.ArgumentParser) -> None:
    slots = "give each node `slots: N` in cluster.yaml, or `flowlaunch run --nproc-per-node N`"
    nodes = "list the machines under `nodes:` in cluster.yaml and use `flowlaunch run --cluster`"
    for short, long, count, answer in (
        ("-g", "--gpu_num_per_node", 1, slots),
        ("-m", "--multinode", 0, nodes),
        ("-n", "--node_list", 1, nodes),
    ):
        parser.add_argument(
            short, long, nargs=count, action=_AskManifest, const=answer, help=argparse.SUPPRESS
        )


if __name__ == "__main__":
    command.run(main)
