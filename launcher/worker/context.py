"""Who this worker is, as its environment says, and what it tells the launcher."""

import os
import time
from typing import Any, Callable, Mapping, Optional

from launcher.wire.report import Report
from launcher.worker import checkpoint, snapshot
from launcher.worker.background import Background
from launcher.worker.reporter import reporter_to


class Context:
    """One worker of a run; run by hand it is rank 0 of 1 and sends nothing.

    Attributes:
        rank: 0..world_size-1 over all nodes.
        local_rank: the same within this node.
        node: the node's name in the manifest, "" by hand.
        run_id: "" by hand.
        attempt: how often the run was started again, 0 at first.
        dry_run: the job should take a few steps on a small sample and stop.
        checkpoint_dir: where `save_checkpoint` publishes.
        resume_from: the checkpoint that `load_checkpoint` reads, or None.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        """Reads the environment.

        Raises:
            ValueError: a variable that must be a number is none.
        """
        # By hand, `import oneflow` sets RANK to -1 for the only worker.
        self.rank = max(_number(env, "RANK", 0), 0)
        self.local_rank = _number(env, "LOCAL_RANK", 0)
        self.world_size = _number(env, "WORLD_SIZE", 1)
        self.node = env.get("FLOWLAUNCH_NODE", "")
        self.node_rank = _number(env, "FLOWLAUNCH_NODE_RANK", 0)
        self.nnodes = _number(env, "FLOWLAUNCH_NNODES", 1)
        self.run_id = env.get("FLOWLAUNCH_RUN_ID", "")
        self.attempt = _number(env, "FLOWLAUNCH_ATTEMPT", 0)
        self.dry_run = env.get("FLOWLAUNCH_DRY_RUN", "0") not in ("", "0")
        self.checkpoint_dir = os.path.abspath(env.get("FLOWLAUNCH_CHECKPOINT_DIR") or "checkpoints")
        self.resume_from = env.get("FLOWLAUNCH_RESUME_FROM") or None
        path = env.get("FLOWLAUNCH_REPORT")
        self._reporter = reporter_to(path, self.world_size) if path else None
        self._background = Background()

    def report(
        self, step: Optional[int] = None, total: Optional[int] = None, **values: Any
    ) -> None:
        """Says how the job stands. A matter of microseconds; waits for nobody.

        Said at most 50 times a second (fewer with more than 80 workers), every report is kept.
        Said faster, the last one of each moment is kept, and those with the smallest, the largest
        and the first value that is not finite of each name. What was said last is never lost,
        however the process ends.

        Args:
            step: the step that is done.
            total: how many there will be.
            values: numbers by name, e.g. ``loss=0.21``; whatever ``float()`` takes will do, a
                tensor of one element too (which waits until that is computed).

        Raises:
            TypeError, ValueError: a value is no number.
        """
        if self._reporter is None:
            return
        self._reporter.report(
            Report(
                time.time(),
                None if step is None else int(step),
                None if total is None else int(total),
                {name: _plain(value) for name, value in values.items()},
            )
        )

    def save_checkpoint(
        self, state: Any, step: int, *, background: bool = False, **meta: Any
    ) -> str:
        """Publishes a checkpoint, whole or not at all. Every rank calls it.

        Local tensors, and all that is no tensor, are rank 0's; the other ranks return at once.
        Of a global tensor that is split over ranks, each rank publishes its part, and the
        checkpoint is there when all parts are; run by hand, rank 0 gets it whole and writes it.

        Args:
            state: dicts, lists and plain values with flow tensors in them, as ``flow.save`` takes.
            step: names the checkpoint.
            background: copies the state to memory, returns, and publishes meanwhile. One at a
                time: the next call waits for the one before, and raises what that raised. At its
                end the process waits for the last; where that failed, it ends with 1.
            meta: JSON values that go into its MANIFEST.json.

        Returns:
            The directory ``step-<8 digits>``; it may not stand yet on other ranks than 0, or with
            `background`, and where there are parts it stands where the launcher is.

        Raises:
            ValueError: this step is published already with other content, or is negative.
            OSError: the disk refuses.
        """
        target = checkpoint.Target(self.checkpoint_dir, int(step), meta)
        target.check()
        self._background.wait()
        taken = snapshot.take(
            state, rank=self.rank, in_parts=self._reporter is not None, copy=background
        )
        if self.rank in taken.writers:
            if len(taken.writers) > 1:
                part = {"rank": self.rank, "of": taken.writers, "attempt": self.attempt}
                target = target._replace(part=part)
            self._publish(lambda: checkpoint.publish(taken, target), target.step, background)
        return os.path.join(self.checkpoint_dir, checkpoint.name_of(target.step))

    def save_files(self, write: Callable[[str], object], step: int, **meta: Any) -> str:
        """Publishes files of any kind as a checkpoint. One rank calls it.

        Args:
            write: is given the path of an empty directory and writes into it.
            step: names the checkpoint.
            meta: JSON values that go into its MANIFEST.json.

        Returns:
            The directory ``step-<8 digits>``.

        Raises:
            ValueError: this step is published already with other content, or is negative.
            OSError: the disk refuses.
        """
        target = checkpoint.Target(self.checkpoint_dir, int(step), meta)
        self._background.wait()
        self._publish(lambda: checkpoint.publish_files(write, target), target.step, False)
        return os.path.join(self.checkpoint_dir, target.name)

    def _publish(self, publish: Callable[[], str], step: int, background: bool) -> None:
        def publish_and_tell() -> None:
            self._announce(publish(), step)

        if background:
            self._background.start(publish_and_tell)
        else:
            publish_and_tell()

    def _announce(self, path: str, step: int) -> None:
        name = os.path.basename(path)
        if self._reporter is not None:
            self._reporter.write(
                {"kind": "checkpoint", "time": time.time(), "step": step, "name": name}
            )

    def load_checkpoint(self, path: Optional[str] = None) -> Any:
        """Returns a checkpoint's state as ``flow.load`` gives it, or None where there is none.

        It does not matter how many workers wrote it. Tensors are local, on the CPU.

        Args:
            path: a directory ``step-<8 digits>``; by default the one to resume from.

        Raises:
            CheckpointError: a file is missing, or is not the one that was published.
        """
        path = path or self.resume_from
        return None if path is None else checkpoint.load(path)


def context() -> Context:
    """Returns this worker's context, from its environment.

    Raises:
        ValueError: a variable that must be a number is none.
    """
    return Context(os.environ)


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise ValueError("%s in the environment is no whole number: %r" % (name, text)) from None


def _plain(value: Any) -> float:
    """Returns a number as Python's own.

    >>> [_plain(value) for value in (1, 2.5, "nan")]
    [1, 2.5, nan]
    """
    if type(value) is float or type(value) is int:
        return value
    # Arrays and tensors of one element; float() of such an array is an error in newer numpy.
    return float(value.item() if hasattr(value, "item") else value)
