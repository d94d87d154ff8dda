"""Notices that a run has gone quiet: nothing of any rank, though every node is heard."""

from __future__ import annotations

from launcher.core.state import FellSilent, RunPhase, RunState, WorkerPhase


class Silence:
    """When something of a worker came last, and whether that is too long ago."""

    def __init__(self, limit_s: float | None, standstill_s: float) -> None:
        """Takes how long no rank may be heard of, None for ever.

        Args:
            limit_s: the limit.
            standstill_s: who was not asked for longer than this has listened to nobody meanwhile.
        """
        self._limit_s = limit_s
        self._standstill_s = standstill_s
        self._heard_at = self._asked_at = 0.0

    def hear(self, now: float) -> None:
        """Something of a worker came."""
        self._heard_at = now

    def notice(self, state: RunState, now: float, *, is_linked: bool) -> FellSilent | None:
        """Returns the event of a silence that has lasted too long, once for each.

        Args:
            state: how the run stands.
            now: the launcher's monotonic clock, seconds.
            is_linked: every node can be heard; else its silence says nothing.
        """
        stood_still = now - self._asked_at > self._standstill_s
        self._asked_at = now
        if self._limit_s is None or stood_still or not is_linked or not _is_under_way(state):
            self._heard_at = now
        elif now - self._heard_at >= self._limit_s:
            self._heard_at = now
            return FellSilent(self._limit_s)
        return None


def _is_under_way(state: RunState) -> bool:
    waiting = any(worker.phase is WorkerPhase.WAITING for worker in state.workers.values())
    return state.phase is RunPhase.RUNNING and not waiting
