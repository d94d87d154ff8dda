"""How a run is followed: what one may set, who looks on, and what is known at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from launcher.collect.checkpoints import Stored
from launcher.collect.gathered import Gathered
from launcher.core import state as core
from launcher.run.gauges import GaugeWatcher
from launcher.wire import events

_NO_RESTARTS = core.RestartPolicy()


class Watcher(GaugeWatcher, Protocol):
    """Whoever looks at a run while it goes on. Called from the loop's thread only."""

    @property
    def is_gone(self) -> bool:
        """Whether nobody looks any more; a run that is followed ends then."""

    def on_state(self, state: core.RunState) -> None:
        """The run stands otherwise than before."""

    def on_output(self, rank: int, stream: str, data: bytes) -> None:
        """A worker wrote these bytes to stdout or stderr."""

    def on_runtime_progress(self, node: str, progress: events.RuntimeProgress) -> None:
        """A node builds its runtime."""

    def on_checkpoint(self, stored: Stored) -> None:
        """A checkpoint is here."""

    def on_collected(self, gathered: Gathered) -> None:
        """A path that `--collect` names is here."""

    def on_tick(self) -> None:
        """Some time has passed."""


@dataclass(frozen=True)
class Options:
    """How a run is followed.

    Attributes:
        grace_s: from TERM to KILL.
        lease_s: how long workers live on without their launcher.
        timeout_s: the run is stopped after so long; None is never.
        hang_timeout_s: the run is stopped after so long without a word of any rank; None is never.
        start_limit_s: what may pass until every rank has joined; None is for ever.
        detach: follow only until every worker has started.
        is_detached: the run goes on without a launcher; Ctrl-C lets go of it.
        check: whether the nodes dial each other before the workers start.
        collect_bytes_per_s: checkpoints and collected files come at most so fast; None is no bound.
    """

    grace_s: float = 5.0
    lease_s: float = 60.0
    timeout_s: float | None = None
    hang_timeout_s: float | None = None
    start_limit_s: float | None = 120.0
    detach: bool = False
    is_detached: bool = False
    check: bool = True
    policy: core.RestartPolicy = _NO_RESTARTS
    collect_bytes_per_s: float | None = None


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        exit_code: what the command ends with.
        state: how everything stood then.
        stderr_tail: the end of the failed worker's stderr.
        checkpoints: what was brought here, in order.
        kept: the nodes on which files of the run stay, and where.
        elapsed_s: from the first connection to the end.
        is_let_go: nothing has ended: the run goes on without this launcher.
        gathered: what `--collect` brought here, in order.
    """

    exit_code: int
    state: core.RunState
    stderr_tail: bytes
    checkpoints: tuple[Stored, ...]
    kept: Mapping[str, events.RunEnded]
    elapsed_s: float
    is_let_go: bool = False
    gathered: tuple[Gathered, ...] = ()
