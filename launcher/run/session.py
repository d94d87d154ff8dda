"""The one loop of a run: events from one queue, through the pure state machine, to actions."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from launcher.core import state as core
from launcher.core import transitions
from launcher.core.blame import Raised
from launcher.run.attempts import Attempts, Undertaking
from launcher.run.bringup import Mode, Transports, new_inbox
from launcher.run.fleet import Fleet
from launcher.run.following import Ending, Options, Watcher
from launcher.run.harvest import Harvest
from launcher.run.heartbeat import Clocks, Heartbeat
from launcher.run.signals import SignalsTo
from launcher.run.silence import Silence
from launcher.run.standing import standing
from launcher.store.run_record import RunRecord
from launcher.wire import events

# How long the loop sleeps at most before it looks at the clock and at Ctrl-C.
TICK_S = 0.2
# Agents answer a ping every 5 s; who misses three of them is lost.
SILENCE_S = 15.0
# A loop that took longer than this for a turn was held up, by a terminal or a sleeping machine.
STANDSTILL_S = 3.0
# What agents may take to clear up after they were told that nothing more is wanted.
END_LIMIT_S = 5.0


class Session:
    """One run, from its plan to its end."""

    def __init__(
        self,
        work: Undertaking,
        record: RunRecord,
        transports: Transports,
        watcher: Watcher,
        options: Options,
        taken_up: core.RunState | None = None,
    ) -> None:
        """Prepares to follow a run.

        Args:
            work: what it is to do.
            record: where it is kept.
            transports: the ways to its nodes.
            watcher: who looks on.
            options: how it is followed.
            taken_up: how it stands, where it goes on already.
        """
        self._record = record
        self._watcher = watcher
        self._options = options
        plan = work.plan
        self._is_taken_up = taken_up is not None
        self._state = taken_up or core.new_run(
            {rank.rank: rank.node for rank in plan.ranks},
            grace_s=options.grace_s,
            start_limit_s=options.start_limit_s,
            policy=options.policy,
        )
        self._inbox = new_inbox()
        self._fleet = Fleet(record.run_id, transports, self._inbox, options.lease_s)
        self._attempts = Attempts(work, record, self._fleet, self._tell_failure, options)
        self._heartbeat = Heartbeat(self._fleet.broadcast)
        self._clocks = Clocks()
        self._harvest = Harvest(plan, record, self._fleet, watcher, options, self._wake)
        self._kept: dict[str, events.RunEnded] = {}
        self._silence = Silence(options.hang_timeout_s, STANDSTILL_S)
        self._looked_at = self._listening_since = time.monotonic()
        self._signals = 0
        self._signals_seen = 0

    def run(self) -> Ending:
        """Carries the run out.

        Raises:
            StoreError: this machine's disk does not take what has to be kept; the workers were
                told to stop, and what they wrote is still on the nodes.
        """
        started = time.monotonic()
        with ExitStack() as stack:
            stack.enter_context(SignalsTo(self._on_signal))
            stack.callback(self._close)
            try:
                self._begin()
                self._heartbeat.start()
                self._harvest.start()
                is_over = self._loop(started)
            except BaseException:
                # Nobody goes on following: a full disk, or a reader of our stdout that went away.
                if not self._options.is_detached:
                    self._fleet.broadcast(events.StopWorkers(self._options.grace_s))
                raise
        return self._ending(started) if is_over else self._let_go(started)

    def _begin(self) -> None:
        if not self._is_taken_up:
            self._begin_attempt()
            return
        self._harvest.resume()
        if self._state.phase is core.RunPhase.PREPARING:
            # Only the launcher that began it knew the workers' whole environment.
            self._step("", core.Interrupted())
        for node in self._attempts.plan.nodes:
            # An agent may have left after all its workers ended: another one tells what it knew.
            self._fleet.attach(node, Mode.SUCCEED)

    def _begin_attempt(self) -> None:
        self._harvest.place(self._state.layout)
        self._attempts.begin(self._state, self._harvest.newest)

    def _loop(self, started: float) -> bool:
        """Follows the run; returns whether it has ended, and does not go on by itself."""
        timed_out = False
        while self._state.phase is not core.RunPhase.ENDED:
            for node, event in self._next_events():
                for heard in self._attempts.sift(node, event):
                    self._take(*heard)
            if self._may_let_go():
                return False
            while self._signals_seen < self._signals:
                self._signals_seen += 1
                self._step("", core.Interrupted())
            if self._watcher.is_gone and self._state.interrupts == 0:
                self._step("", core.Interrupted())
            limit = self._options.timeout_s
            if limit is not None and not timed_out and time.monotonic() - started >= limit:
                timed_out = True
                self._step("", core.TimedOut())
            self._take_pending()
            self._notice_silence()
            self._notice_hang()
            self._step("", core.Tick())
            self._harvest.on_tick(self._state)
            self._watcher.on_tick()
        return True

    def _may_let_go(self) -> bool:
        """Whether a detached run is to go on, and can go on, without this launcher."""
        if not self._options.is_detached or self._state.phase is not core.RunPhase.RUNNING:
            return False
        if self._is_taken_up:
            return self._signals > 0 or self._watcher.is_gone
        return self._options.detach and core.needs_no_launcher(self._state, time.monotonic())

    def _notice_hang(self) -> None:
        is_linked = all(driver.is_linked for driver in self._fleet.drivers.values())
        silent = self._silence.notice(self._state, time.monotonic(), is_linked=is_linked)
        if silent is not None:
            self._step("", silent)

    def _notice_silence(self) -> None:
        """Has another link made to nodes that answer no ping: a cut cable, a stopped agent.

        Before the workers run, an agent may be busy with files for longer than that. And where
        this loop itself stood still, nobody was listened to.
        """
        now = time.monotonic()
        if now - self._looked_at > STANDSTILL_S:
            self._listening_since = now
        self._looked_at = now
        if self._state.phase is core.RunPhase.PREPARING:
            return
        for driver in self._fleet.drivers.values():
            heard = max(driver.heard_at, driver.linked_at, self._listening_since)
            if driver.is_linked and now - heard > SILENCE_S:
                driver.drop(f"it has said nothing for {SILENCE_S:.0f} s")

    def _next_events(self) -> Iterable[tuple[str, core.AnyEvent]]:
        """Yields what has come; waits for a first one, but not long."""
        try:
            yield self._inbox.get(timeout=TICK_S)
            while True:
                yield self._inbox.get_nowait()
        except queue.Empty:
            return

    def _on_signal(self) -> None:
        self._signals += 1

    # What each event means

    def _take(self, node: str, event: core.AnyEvent) -> None:
        handler = _TAKERS.get(type(event))
        if handler is not None:
            handler(self, node, event)
        else:
            self._step(node, event)

    def _take_output(self, node: str, event: events.WorkerOutput) -> None:
        self._silence.hear(time.monotonic())
        for told in self._harvest.on_output(node, event, self._state.nodes[node].ahead_s):
            self._step(node, told)

    def _take_output_end(self, node: str, event: events.OutputEnded) -> None:
        self._step(node, self._harvest.on_output_end(node, event))

    def _take_measured(self, node: str, event: events.NodeMeasured) -> None:
        self._harvest.on_measured(node, event, self._state.nodes[node].ahead_s)

    def _take_published(self, node: str, event: events.CheckpointPublished) -> None:
        self._note(node, event)
        self._harvest.on_published(node, event)
        self._step("", core.CheckpointsPending(self._harvest.pending))

    def _take_settled(self, node: str, event: events.PathSettled) -> None:
        self._note(node, event)
        self._harvest.on_settled(node, event)
        self._step("", core.CheckpointsPending(self._harvest.pending))

    def _take_chunk(self, node: str, event: events.FileChunk) -> None:
        self._harvest.on_chunk(event)

    def _take_file_end(self, node: str, event: events.FileEnded) -> None:
        self._harvest.on_file_end(event)

    def _take_pending(self, node: str = "", event: core.CheckpointsPending | None = None) -> None:
        """How many are pending is asked now: more may have been published since."""
        pending = self._harvest.pending
        for place, failed in self._harvest.take_outcomes():
            self._step(place, failed)
        if self._state.checkpoints_pending != pending:
            self._step("", core.CheckpointsPending(pending))

    def _take_trouble(self, node: str, event: events.NodeTroubled) -> None:
        self._note(node, event)
        self._watcher.on_problem(f"{node}: {event.message}")

    def _take_ready(self, node: str, event: events.AgentReady) -> None:
        self._note(node, event)
        self._fleet.send(node, events.Ping(time.time()))

    def _take_pong(self, node: str, event: events.Pong) -> None:
        ahead_s = self._clocks.measure(node, event, time.time())
        if ahead_s is not None:
            self._step(node, core.ClockMeasured(ahead_s))

    def _take_progress(self, node: str, event: events.RuntimeProgress) -> None:
        self._watcher.on_runtime_progress(node, event)

    def _take_dropped(self, node: str, event: core.LinkDropped) -> None:
        self._step(node, event)
        self._harvest.on_dropped(node)
        self._watcher.on_problem(f"{node}: no connection ({event.message}); trying again")

    def _take_restored(self, node: str, event: core.LinkRestored) -> None:
        if self._state.nodes[node].cut:
            self._watcher.on_problem(f"{node}: the connection stands again")
        self._step(node, event)
        if self._state.phase is core.RunPhase.PREPARING:
            self._fleet.repeat_order(node)
        self._harvest.on_restored(node)
        for action in transitions.catch_up(self._state, node):
            self._act(action, only=node)

    def _take_gone(self, node: str, event: core.AgentGone) -> None:
        self._step(node, event)
        known = self._state.nodes.get(node)
        if known is not None and known.is_reachable:
            self._fleet.succeed(node)

    def _take_lost(self, node: str, event: core.LinkLost) -> None:
        self._step(node, event)
        self._harvest.on_lost(node)

    def _wake(self) -> None:
        """Called from the courier's thread: something came of collecting."""
        with contextlib.suppress(queue.Full):  # then the loop turns without being told
            self._inbox.put_nowait(("", core.CheckpointsPending(0)))

    def _take_wanted(self, node: str, event: events.CheckpointWanted) -> None:
        self._attempts.on_wanted(node, event)

    def _take_placed(self, node: str, event: events.CheckpointPlaced) -> None:
        self._note(node, event)
        self._attempts.on_placed(event)

    # The state machine

    def _step(self, node: str, event: core.AnyEvent) -> None:
        before = self._state
        self._state, actions = transitions.step(before, node, event, time.monotonic())
        if not isinstance(event, core.Tick):
            self._note(node, event)
        if self._state.phase is not before.phase:
            self._record.append("run_phase_changed", phase=self._state.phase.value)
            self._record.update(**standing(self._state))
        for restart in self._state.restarts[len(before.restarts) :]:
            self._watcher.on_problem(f"attempt {restart.attempt} failed: {restart.cause}")
        if self._state is not before:
            self._watcher.on_state(self._state)
        for action in actions:
            self._act(action)

    def _note(self, node: str, event: core.AnyEvent) -> None:
        fields = {key: _plain(value) for key, value in event._asdict().items() if key != "data"}
        self._record.append(_kind(event), **({"node": node} if node else {}), **fields)

    def _tell_failure(self, node: str, failure: core.NodeFailed) -> None:
        self._inbox.put((node, failure))

    def _act(self, action: core.Action, only: str = "") -> None:
        """Does what the state machine wants, on all nodes or on one."""
        if isinstance(action, core.PrepareAgain):
            self._begin_attempt()
            return
        command = self._command(action)
        if only:
            self._fleet.send(only, command)
        else:
            self._fleet.broadcast(command)

    def _command(self, action: core.Action) -> events.Command:
        if isinstance(action, core.StartAll):
            return events.StartWorkers(action.attempt, action.ctrl_port, self._attempts.resume_from)
        return _COMMANDS[type(action)](action)

    # The end

    def _close(self) -> None:
        """Lets every agent finish, then lets go of all that was used."""
        deadline = time.monotonic() + END_LIMIT_S
        while self._fleet.is_linked:
            if self._state.phase is not core.RunPhase.ENDED or time.monotonic() > deadline:
                break
            for node, event in self._next_events():
                if isinstance(event, events.RunEnded) and event.kept:
                    self._note(node, event)
                    self._kept[node] = event
        self._heartbeat.stop()
        self._harvest.stop()
        self._fleet.close(deadline, self._drain)
        self._attempts.close()
        self._harvest.close()

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()

    def _let_go(self, started: float) -> Ending:
        """Leaves a detached run to its agents."""
        self._fleet.broadcast(events.OpenGate(self._state.attempt))
        self._record.append("run_let_go")
        elapsed_s = time.monotonic() - started
        return Ending(
            0, self._state, b"", tuple(self._harvest.stored), {}, elapsed_s, is_let_go=True
        )

    def _ending(self, started: float) -> Ending:
        code = core.exit_code(self._state)
        if self._attempts.plan.collect and not self._harvest.gathered and not self._state.missing:
            self._watcher.on_problem(
                f"nothing was there to collect: {', '.join(self._attempts.plan.collect)}"
            )
        cause = self._state.root_cause
        tail = b""
        if cause is not None:
            node = self._state.workers[cause.rank].node
            tail = self._harvest.tail(node, cause.rank)
        elapsed_s = time.monotonic() - started
        self._record.append("run_ended", exit_code=code)
        self._record.update(
            **standing(self._state), exit_code=code, ended=time.time(), elapsed_s=elapsed_s
        )
        return Ending(
            code,
            self._state,
            tail,
            tuple(self._harvest.stored),
            self._kept,
            elapsed_s,
            gathered=tuple(self._harvest.gathered),
        )


def _kind(event: core.AnyEvent) -> str:
    return events.snake_case(type(event).__name__)


def _plain(value: object) -> object:
    if isinstance(value, Raised):
        return value._asdict()
    return value.value if isinstance(value, core.WorkerPhase) else value


_COMMANDS: dict[type, Callable[[Any], events.Command]] = {
    core.OpenGates: lambda action: events.OpenGate(action.attempt),
    core.AskStacks: lambda action: events.CollectStacks(),
    core.StopAll: lambda action: events.StopWorkers(action.grace_s),
    core.EndAll: lambda action: events.EndRun(action.keep),
}
_TAKERS: dict[type, Callable[[Session, str, Any], None]] = {
    events.AgentReady: Session._take_ready,
    events.WorkerOutput: Session._take_output,
    events.OutputEnded: Session._take_output_end,
    events.Pong: Session._take_pong,
    events.RuntimeProgress: Session._take_progress,
    events.NodeMeasured: Session._take_measured,
    events.CheckpointPublished: Session._take_published,
    events.NodeTroubled: Session._take_trouble,
    events.PathSettled: Session._take_settled,
    events.FileChunk: Session._take_chunk,
    events.FileEnded: Session._take_file_end,
    core.CheckpointsPending: Session._take_pending,
    events.CheckpointWanted: Session._take_wanted,
    events.CheckpointPlaced: Session._take_placed,
    core.LinkLost: Session._take_lost,
    core.LinkDropped: Session._take_dropped,
    core.LinkRestored: Session._take_restored,
    core.AgentGone: Session._take_gone,
}
