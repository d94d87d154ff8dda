"""The agent's one loop: a launcher's commands, the workers' output, their ends, the clock.

Nothing in here blocks: the link's descriptors and the timer are waited for together, and files
are only read where the launcher has taken what was read before.
"""

import os
import selectors
import signal
import socket
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from launcher.agent import (
    checkpoints,
    last_words,
    prepare,
    run_processes,
    streams,
    workers,
)
from launcher.agent.conversation import Conversation
from launcher.agent.diagnosis import WRITABLE, NodeWatch
from launcher.agent.disk_watch import DiskWatch, cannot_release
from launcher.agent.files import FileDiffersError
from launcher.agent.gathering import Gatherer
from launcher.agent.link import Link
from launcher.agent.memory import OF_AN_ATTEMPT, RunMemory
from launcher.agent.meter import Meter
from launcher.agent.output import Output
from launcher.agent.preparation import Preparation
from launcher.agent.rendezvous import Rendezvous
from launcher.agent.services import Services
from launcher.agent.visits import Host, Visits
from launcher.wire import codec, events, order

# Output is joined for as long as this before it is sent.
TICK_S = 0.03
# What workers left behind, and workers whose launcher is gone, get to end by themselves.
LEFTOVER_GRACE_S = 5.0
OF_A_PREPARATION = (events.NodePrepared,)


class Supervisor(Host):
    """One run on one node, from the first command until the launcher wants no more of it."""

    def __init__(self, root: str, run_dir: str, listener: socket.socket) -> None:
        """Takes over a run's directory.

        Args:
            root: flowlaunch's directory on this node.
            run_dir: where the run keeps everything on this node.
            listener: where later launchers bring their descriptors.
        """
        self._run_dir = run_dir
        self._selector = selectors.DefaultSelector()
        self._launcher = Conversation(self._selector, listener, self._obey)
        self._visits = Visits(self._selector, self, run_dir)
        self._shelf = checkpoints.CheckpointShelf(self._path("checkpoints"))
        self._gatherer: Optional[Gatherer] = None
        self._services = Services(run_dir, self._launcher.emit)
        self._memory = RunMemory(run_dir)
        self._job = Preparation(root, run_dir, self._memory, self._services, self._launcher.emit)
        self._news: "List[events.Event]" = []
        self._next_order: Optional[events.PrepareRun] = None
        self._workers: Optional[workers.WorkerSet] = None
        self._output: Optional[Output] = None
        self._disk = DiskWatch(run_dir)
        self._meter: Optional[Meter] = None
        self._watch: Optional[NodeWatch] = None
        self._attempt = 0
        self._rendezvous = Rendezvous()
        self._kill_at: Optional[float] = None
        self._ends_sent = False
        self._lease_s = 60.0
        self._end_wanted = False
        self._keep_wanted = False

    def _path(self, *names: str) -> str:
        return os.path.join(self._run_dir, *names)

    def run(self, first: Link) -> List[str]:
        """Serves until the run is over; returns the paths that may go then.

        A launcher that listens hears of the end with `close`, when they are gone.
        """
        self._watch_children()
        self._take_over()
        self._launcher.take(first)
        while not self._is_over():
            for key, mask in self._selector.select(self._pause()):
                key.data(mask)
            self._tick()
        self._services.stop_build()
        return self._say_goodbye() if self._end_wanted else self._leave_unasked()

    def close(self) -> None:
        """Says the last words, waits until they are heard, and lets go of every launcher."""
        self._launcher.close()
        self._visits.close()

    def _take_over(self) -> None:
        """Goes on from what an earlier agent of this run left, where there was one."""
        ordered = self._job.order
        if ordered is None:
            return
        self._news = self._memory.news()
        # Workers die with their agent, but not what they started.
        left = run_processes.end([ordered.run_id], 0.0, False, ordered.node).left
        logs = self._path("logs")
        last_words.add_all(logs)
        ranks = streams.ranks_in(logs)
        if ranks:
            self._output = Output(logs, ranks, ordered.max_log_bytes)
        self._launcher.await_offsets()
        if not any(isinstance(event, events.WorkersStopped) for event in self._news):
            self._tell(events.WorkersStopped(len(left), clock=time.time()))

    def _leave_unasked(self) -> List[str]:
        """Leaves everything for a later launcher."""
        words = "no launcher was heard of for %.0f s, which is the lease" % self._lease_s
        self._memory.say_farewell(words)
        return []

    def _say_goodbye(self) -> List[str]:
        """Tells what stays here; returns the paths that may go."""
        left = self._job.written(self._gatherer.told() if self._gatherer is not None else set())
        if self._keep_wanted:
            self._launcher.emit(events.RunEnded(self._run_dir, *left))
            return []
        if left.files:
            self._launcher.emit(events.RunEnded(self._path("work"), *left))
            return [self._path(name) for name in os.listdir(self._run_dir) if name != "work"]
        self._launcher.emit(events.RunEnded("", 0, 0))
        return [self._run_dir]

    def _watch_children(self) -> None:
        read_end, write_end = os.pipe()
        for fd in (read_end, write_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._selector.register(
            read_end, selectors.EVENT_READ, lambda mask: os.read(read_end, 4096)
        )

    def _pause(self) -> float:
        return min(TICK_S, self._rendezvous.pause_s)

    @property
    def _is_working(self) -> bool:
        """Whether something of the run may still live here."""
        return self._workers is not None and not self._workers.is_settled

    def _is_over(self) -> bool:
        if self._is_working or self._visits.is_busy:
            return False
        return self._end_wanted or self._launcher.silent_s >= self._lease_s

    # Commands

    def _obey(self, command: events.Message) -> None:
        obey: Optional[Callable[[Any, Any], None]] = _HANDLERS.get(type(command))
        try:
            if obey is not None:
                obey(self, command)
            elif not self._services.obey(command):
                raise codec.WireError("not for an agent: %s" % events.kind_of(command))
        except prepare.Unusable as problem:
            self._launcher.emit(problem.event)
        except FileDiffersError:
            self._launcher.emit(prepare.file_differs().event)
        except OSError as error:
            self._launcher.emit(prepare.disk_problem(error).event)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError,
                ValueError) as error:  # fmt: skip
            # Nothing that a launcher says, of whatever version, may end the agent: the workers
            # would end with it.
            told = "%s: %s: %s" % (events.kind_of(command), type(error).__name__, error)
            raise codec.WireError(told) from None

    def _on_hello(self, hello: events.Hello) -> None:
        self._lease_s = hello.lease_s
        # What an earlier launcher had asked for is of no use to this one.
        self._shelf.forget_all()
        self._job.forget_offer()
        self._launcher.emit(
            events.AgentReady(
                version=events.VERSION,
                pid=os.getpid(),
                hostname=socket.gethostname(),
                python="%d.%d.%d" % sys.version_info[:3],
                cores=os.cpu_count() or 1,
                clock=time.time(),
            )
        )
        # An earlier launcher may have gone before it heard these; who heard them, hears them twice.
        for event in self._news:
            self._launcher.emit(event)

    def _tell(self, event: events.Event) -> None:
        """Sends what every later launcher must hear of too."""
        self._news.append(event)
        try:
            self._memory.keep_news(event)
        except OSError:
            pass  # a full disk: whoever comes while this agent lives hears of it all the same
        self._launcher.emit(event)

    def _on_prepare(self, command: events.PrepareRun) -> None:
        self._services.close_doors()
        ordered = order.unpack(command.data)
        if self._is_working:
            # A new attempt, by a launcher that had lost this node in the last one.
            self._next_order = command
            self._begin_stop(LEFTOVER_GRACE_S)
            return
        self._news = [event for event in self._news if not isinstance(event, OF_A_PREPARATION)]
        self._job.begin(ordered)

    def _on_put_file(self, piece: events.PutFile) -> None:
        self._job.put(piece)

    def _on_start(self, command: events.StartWorkers) -> None:
        ordered = self._job.order
        assert ordered is not None and self._job.python
        if self._workers is not None and command.attempt <= self._attempt:
            # Said again after the link was down, since nobody could know that it had come here.
            return
        self._services.close_doors()
        self._attempt, self._kill_at, self._ends_sent = command.attempt, None, False
        self._news = [event for event in self._news if not isinstance(event, OF_AN_ATTEMPT)]
        self._memory.forget_attempt(self._news)
        logs = self._path("logs")
        current = workers.WorkerSet(self._job.python, self._job.workdir, logs)
        ranks = [worker.rank for worker in ordered.workers]
        if self._output is None:
            self._output = Output(logs, ranks, ordered.max_log_bytes)
        else:
            self._output.add(ranks)
        sizes = self._output.sizes()
        self._workers = current
        if self._gatherer is not None:
            self._gatherer.pause()
        self._meter = self._meter or Meter(self._run_dir)
        if self._watch is not None:
            self._watch.close()
        self._watch = NodeWatch(self._job.python, [self._job.folder, *WRITABLE])
        if not os.path.exists(self._job.python):
            raise prepare.python_gone(self._job.python)
        for rank, pid in current.start_all(ordered.workers, self._node_env(command)):
            at = [sizes[rank, name] for name in (streams.STDOUT, streams.STDERR)]
            self._tell(events.WorkerStarted(rank, command.attempt, pid, time.time(), *at))
        self._rendezvous.expect(command.ctrl_port if ordered.hosts_rendezvous else 0)

    def _node_env(self, command: events.StartWorkers) -> Dict[str, str]:
        env = {
            "MASTER_PORT": str(command.ctrl_port),
            "FLOWLAUNCH_ATTEMPT": str(command.attempt),
            "FLOWLAUNCH_CHECKPOINT_DIR": self._path("checkpoints"),
            "FLOWLAUNCH_ROOT": self._job.folder,
        }
        if command.resume_from:
            env["FLOWLAUNCH_RESUME_FROM"] = self._path(command.resume_from)
        return env

    def _on_open_gate(self, command: events.OpenGate) -> None:
        if self._workers is not None and command.attempt == self._attempt:
            self._workers.open_gate()

    def _on_collect_stacks(self, command: events.CollectStacks) -> None:
        from launcher.agent import stacks

        current, python = self._workers, self._job.python
        pids = current.living if current is not None else {}
        logs = self._path("logs")
        self._services.start("stacks", lambda: stacks.answer(pids, logs, python))

    def _on_stop(self, command: events.StopWorkers) -> None:
        self._services.stop_build()
        if self._is_working:
            self._begin_stop(command.grace_s)
        else:
            self._launcher.emit(events.WorkersStopped(left=0, clock=time.time()))

    def _begin_stop(self, grace_s: float) -> None:
        assert self._workers is not None
        kill_at = time.monotonic() + grace_s
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        self._workers.terminate()

    def _on_follow(self, command: events.FollowOutput) -> None:
        self._launcher.follows = True
        if self._output is not None:
            self._output.seek(events.unpack_json(command.data))
            self._ends_sent = False

    def _on_release(self, command: events.ReleaseOutput) -> None:
        if self._output is not None:
            problem = self._output.release(events.unpack_json(command.data))
            if problem is not None:
                self._launcher.emit(cannot_release(problem))

    def _on_fetch(self, command: events.FetchFile) -> None:
        error = self._shelf.serve(command)
        if error is not None:
            self._launcher.emit(events.FileEnded(command.request, 0, error))

    def _on_ping(self, command: events.Ping) -> None:
        self._launcher.emit(events.Pong(command.sent, time.time()))

    def _on_offer_checkpoint(self, command: events.OfferCheckpoint) -> None:
        self._job.offer(command)

    def _on_put_checkpoint_file(self, command: events.PutCheckpointFile) -> None:
        self._job.put_checkpoint_file(command)

    def _on_drop_checkpoint(self, command: events.DropCheckpoint) -> None:
        self._shelf.drop(command.name)
        self._news = [event for event in self._news if not _tells_of(event, command.name)]

    def _on_end_run(self, command: events.EndRun) -> None:
        self._end_wanted = True
        self._keep_wanted = command.keep
        if self._is_working:
            self._begin_stop(LEFTOVER_GRACE_S)

    # What visitors want

    def stop_for_visitor(self, grace_s: float) -> None:
        """Stops the workers, and tells every launcher of the run that somebody else had it done."""
        self._tell(events.StopOrdered(time.time()))
        self._on_stop(events.StopWorkers(grace_s))

    def standing(self) -> Dict[str, Any]:
        """Returns how the run stands here."""
        return {
            "linked": self._launcher.is_open,
            "silent_s": time.monotonic() - self._launcher.heard_at,
            "lease_s": self._lease_s,
            "detached": self._job.is_detached,
            "working": self._is_working,
        }

    @property
    def is_working(self) -> bool:
        """Whether something of the run may still live here."""
        return self._is_working

    # What happens by itself

    def _tick(self) -> None:
        self._tick_preparation()
        if self._workers is not None:
            self._tick_workers(self._workers)
        if self._output is not None:
            self._tick_gathering()
            self._tick_output(self._output)
            self._disk.look(self._launcher.emit)
        self._shelf.send(self._launcher)
        self._visits.tick()
        if self._meter is not None:
            self._meter.tick(self._launcher, self._is_working)
        self._launcher.flush()
        if self._is_working and self._kill_at is None and self._is_lease_over():
            self._tell(events.LeaseEnded(self._lease_s, time.time()))
            self._begin_stop(LEFTOVER_GRACE_S)
        if self._next_order is not None and not self._is_working:
            command, self._next_order = self._next_order, None
            self._launcher.obey(command)

    def _tick_preparation(self) -> None:
        try:
            prepared = self._job.tick()
        except prepare.Unusable as problem:
            self._launcher.emit(problem.event)
            return
        if prepared is not None:
            self._tell(prepared)

    def _tick_workers(self, current: workers.WorkerSet) -> None:
        if current.is_settled:
            return
        for rank, exit_code, number in current.reap():
            stopped = self._kill_at is not None
            self._tell(
                events.WorkerExited(rank, self._attempt, exit_code, number, time.time(), stopped)
            )
            if exit_code != 0 and not stopped:
                self._diagnose(rank, current)
            if exit_code != 0 and not stopped and not self._launcher.is_open:
                # Nobody is there to decide it, and the others would wait for this one for ever.
                self._begin_stop(LEFTOVER_GRACE_S)
        if self._rendezvous.has_begun():
            current.open_gate()
            self._tell(events.RendezvousListening(self._attempt, time.time()))
        if not current.running or self._kill_at is not None:
            self._settle(current)

    def _diagnose(self, rank: int, current: workers.WorkerSet) -> None:
        """Tells what the node knows of a worker that failed by itself."""
        facts = self._watch.facts(current.pids[rank]) if self._watch is not None else []
        if facts:
            data = events.pack_json(facts)
            self._tell(events.WorkerDiagnosed(rank, self._attempt, data))

    def _settle(self, current: workers.WorkerSet) -> None:
        """Sees to it that nothing is left once the workers have ended, or must end."""
        if current.has_processes():
            if self._kill_at is None:
                self._begin_stop(LEFTOVER_GRACE_S)
            elif time.monotonic() >= self._kill_at:
                current.kill()
            return
        last_words.add_all(self._path("logs"))
        current.settle()
        self._rendezvous.expect(0)
        self._tell(events.WorkersStopped(left=0, clock=time.time()))

    def _tick_gathering(self) -> None:
        if self._gatherer is None:
            self._gatherer = self._job.gatherer()
        if self._gatherer is not None:
            self._shelf.workdir = self._job.workdir
            self._gatherer.tick(self._tell, is_working=self._is_working)

    def _tick_output(self, output: Output) -> None:
        for rank, line in output.report_lines():
            announced = checkpoints.published_in(line)
            if announced is not None:
                self._tell(self._shelf.announcement(rank, *announced))
            elif rank == 0:
                self._rendezvous.on_report(line)
        output.look()
        if not self._launcher.follows:
            return
        output.send(self._launcher)
        ended = not self._is_working and not self._ends_sent
        if self._gatherer is not None and not self._gatherer.is_done:
            # A stream's end is the last that is heard of a worker: what it left comes before.
            ended = False
        if ended and self._launcher.is_open and output.is_drained():
            self._ends_sent = True
            for end in output.ends():
                self._launcher.emit(end)

    def _is_lease_over(self) -> bool:
        """Whether the launcher is gone for too long, in a run that needs one."""
        if self._job.is_detached:
            return False
        return self._launcher.silent_s >= self._lease_s


def _tells_of(event: events.Event, name: str) -> bool:
    told = event.name if isinstance(event, events.CheckpointPublished) else ""
    return told == name or told.startswith(name + ".part-")


_HANDLERS: Dict[type, Callable[[Any, Any], None]] = {
    events.Hello: Supervisor._on_hello,
    events.PrepareRun: Supervisor._on_prepare,
    events.PutFile: Supervisor._on_put_file,
    events.StartWorkers: Supervisor._on_start,
    events.OpenGate: Supervisor._on_open_gate,
    events.StopWorkers: Supervisor._on_stop,
    events.CollectStacks: Supervisor._on_collect_stacks,
    events.FollowOutput: Supervisor._on_follow,
    events.FetchFile: Supervisor._on_fetch,
    events.Ping: Supervisor._on_ping,
    events.EndRun: Supervisor._on_end_run,
    events.ReleaseOutput: Supervisor._on_release,
    events.OfferCheckpoint: Supervisor._on_offer_checkpoint,
    events.DropCheckpoint: Supervisor._on_drop_checkpoint,
    events.PutCheckpointFile: Supervisor._on_put_checkpoint_file,
}
