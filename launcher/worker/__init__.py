"""What a job imports: who this worker is, reports, checkpoints.

    from launcher import worker

    w = worker.context()                            # run by hand: rank 0 of 1, nothing is sent
    state = w.load_checkpoint()                     # from --resume or a restart, else None
    w.report(step=10, total=600, loss=0.21)
    w.save_checkpoint(model.state_dict(), step=10)  # called on every rank

Shipped to nodes: Python 3.7 and its standard library only; oneflow is imported where it is used.
"""

from launcher.worker.checkpoint import CheckpointError
from launcher.worker.context import Context, context

__all__ = ["CheckpointError", "Context", "context"]
