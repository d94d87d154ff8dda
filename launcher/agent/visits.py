"""Side conversations: a visitor asks and orders a few things while the run's launcher is served.

A visitor comes to the agent of a run; where none lives, its own process answers, as far as the
disk and the table of processes know.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import array
import contextlib
import os
import queue
import selectors
import socket
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from launcher.agent import errands
from launcher.agent.checkpoints import CheckpointShelf
from launcher.agent.conversation import Conversation, accept_link
from launcher.agent.link import Link
from launcher.wire import codec, events

# Where visitors knock, in the run's directory; launchers do at a door of their own.
VISIT_SOCKET = "visit.sock"
TICK_S = 0.03
# An agent answers within a tick; one that does not is stopped or stuck.
ANSWER_S = 2.0


class Host:
    """What a visitor wants of the agent that it came to; here, where none lives."""

    def stop_for_visitor(self, grace_s: float) -> None:
        """Stops the workers, and tells the launcher that somebody else had it done."""

    @property
    def is_working(self) -> bool:
        """Whether something of the run may still live here."""
        return False

    def standing(self) -> Dict[str, Any]:
        """Returns how the run stands here, nothing where no agent knows."""
        return {}


class Visit:
    """One side conversation."""

    def __init__(
        self,
        link: Link,
        selector: selectors.BaseSelector,
        host: Host,
        root: str,
        run_id: str,
        node: str,
    ) -> None:
        """Takes up the conversation.

        Args:
            link: the visitor's descriptors.
            selector: what the host waits with.
            host: the agent that is visited.
            root: flowlaunch's directory on this node.
            run_id: the run that the visitor comes for.
            node: this node's name in it.
        """
        self._talk = Conversation(selector, None, self._obey)
        self._host = host
        self._root, self._run_id, self._node = root, run_id, node
        self._shelf = CheckpointShelf(os.path.join(root, "runs", run_id, node, "checkpoints"))
        self._from_threads: "queue.Queue[events.Event]" = queue.Queue()
        self._awaited = 0
        self._stop: Optional[events.StopRun] = None
        self._stop_began = 0.0
        self._talk.take(link)

    @property
    def is_open(self) -> bool:
        """Whether the visitor is still there."""
        return self._talk.is_open

    @property
    def is_busy(self) -> bool:
        """Whether an answer is still to come, for a visitor who is still there."""
        return self.is_open and (self._stop is not None or self._awaited > 0)

    def tick(self) -> None:
        """Goes on with what was asked."""
        stop = self._stop
        if stop is not None and not self._host.is_working:
            self._stop = None
            self._begin("stopping", lambda: self._end_rest(stop))
        while not self._from_threads.empty():
            self._talk.emit(self._from_threads.get())
            self._awaited -= 1
        self._shelf.send(self._talk)
        self._talk.flush()

    def close(self) -> None:
        """Lets go of the visitor, who has been told everything."""
        self._shelf.forget_all()
        self._talk.drop()

    def _begin(self, name: str, work: Callable[[], events.Event]) -> None:
        self._awaited += 1
        errands.start(name, work, self._from_threads.put)

    def _obey(self, command: events.Message) -> None:
        obey: Optional[Callable[[Any, Any], None]] = _HANDLERS.get(type(command))
        if obey is None:
            raise codec.WireError("not for a visit: %s" % events.kind_of(command))
        try:
            obey(self, command)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError,
                ValueError) as error:  # fmt: skip
            # As in the supervisor: nothing that is said here may end the agent.
            told = "%s: %s: %s" % (events.kind_of(command), type(error).__name__, error)
            raise codec.WireError(told) from None

    def _on_hello(self, hello: events.Hello) -> None:
        self._talk.emit(
            events.AgentReady(
                version=events.VERSION,
                pid=os.getpid(),
                hostname=socket.gethostname(),
                python="%d.%d.%d" % sys.version_info[:3],
                cores=os.cpu_count() or 1,
                clock=time.time(),
            )
        )

    def _on_ping(self, ping: events.Ping) -> None:
        self._talk.emit(events.Pong(ping.sent, time.time()))

    def _on_ask_standing(self, command: events.AskStanding) -> None:
        self._talk.emit(events.StandingReported(events.pack_json(self._host.standing())))

    def _on_fetch(self, command: events.FetchFile) -> None:
        error = self._shelf.serve(command)
        if error is not None:
            self._talk.emit(events.FileEnded(command.request, 0, error))

    def _on_list_checkpoints(self, command: events.ListCheckpoints) -> None:
        published = self._shelf.published()
        for name, step in published:
            self._talk.emit(self._shelf.announcement(0, step, name))
        self._talk.emit(events.CheckpointsListed(len(published)))

    def _on_stop_run(self, command: events.StopRun) -> None:
        self._stop, self._stop_began = command, time.monotonic()
        self._host.stop_for_visitor(command.grace_s)

    def _end_rest(self, stop: events.StopRun) -> events.Event:
        """Ends what the agent does not know of: what an earlier one, killed, had left."""
        from launcher.agent import run_processes

        # An agent that does not answer is ended; this one is not, whoever else was on its node.
        alone = type(self._host) is Host
        grace_s = max(0.0, self._stop_began + stop.grace_s - time.monotonic())
        done = run_processes.end([self._run_id], grace_s, alone, self._node)
        left = [process._asdict() for process in done.left]
        return events.RunStopped(events.pack_json(left))

    def _on_find_runs(self, command: events.FindRuns) -> None:
        from launcher.agent import leavings

        self._begin("finding runs", lambda: leavings.find_runs(self._root, self._node))

    def _on_end_runs(self, command: events.EndRuns) -> None:
        from launcher.agent import leavings

        self._begin("ending runs", lambda: leavings.end_runs(command, self._root, self._node))


_HANDLERS: Dict[type, Callable[[Any, Any], None]] = {
    events.Hello: Visit._on_hello,
    events.Ping: Visit._on_ping,
    events.AskStanding: Visit._on_ask_standing,
    events.FetchFile: Visit._on_fetch,
    events.ListCheckpoints: Visit._on_list_checkpoints,
    events.StopRun: Visit._on_stop_run,
    events.FindRuns: Visit._on_find_runs,
    events.EndRuns: Visit._on_end_runs,
}


class Visits:
    """All side conversations of one agent."""

    def __init__(self, selector: selectors.BaseSelector, host: Host, run_dir: str) -> None:
        """Takes what the agent waits with, the agent, and its run's directory."""
        self._selector = selector
        self._host = host
        above, self._node = os.path.split(run_dir)
        top, self._run_id = os.path.split(above)
        self._root = os.path.dirname(top)
        self._open: List[Visit] = []
        self._listener = _listen(run_dir)
        selector.register(self._listener, selectors.EVENT_READ, self._on_knock)

    @property
    def is_busy(self) -> bool:
        """Whether a visitor still waits for an answer."""
        return any(visit.is_busy for visit in self._open)

    def _on_knock(self, mask: int) -> None:
        link = accept_link(self._listener)
        if link is not None:
            args = (self._selector, self._host, self._root, self._run_id, self._node)
            self._open.append(Visit(link, *args))

    def tick(self) -> None:
        """Goes on with every visit."""
        for visit in list(self._open):
            visit.tick()
            if not visit.is_open:
                visit.close()
                self._open.remove(visit)

    def close(self) -> None:
        """Lets go of all visitors."""
        for visit in self._open:
            visit.close()
        self._open.clear()
        self._selector.unregister(self._listener)
        self._listener.close()


def _listen(run_dir: str) -> socket.socket:
    """Opens the visitors' door; one that is there was an earlier agent's."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    with _place(run_dir) as place:
        fresh = "%s.%d" % (place, os.getpid())
        listener.bind(fresh)
        listener.listen(8)
        os.rename(fresh, place)
    return listener


@contextlib.contextmanager
def _place(run_dir: str) -> Iterator[str]:
    """Gives a name of the door by way of the directory: it may be 107 bytes long at most."""
    directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield "/proc/self/fd/%d/%s" % (directory, VISIT_SOCKET)
    finally:
        os.close(directory)


def knock(run_dir: str, fds: List[int]) -> bool:
    """Brings a visitor's descriptors to the agent of a run; returns whether one took them."""
    try:
        with _place(run_dir) as place, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(ANSWER_S)
            agent.connect(place)
            data = array.array("i", fds)
            agent.sendmsg([b"link"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, data)])
        return True
    except OSError:
        return False


def receive_alone(link: Link, root: str, run_id: str, node: str) -> None:
    """Serves a visitor where no agent does, until they go."""
    with selectors.DefaultSelector() as selector:
        visit = Visit(link, selector, Host(), root, run_id, node)
        while visit.is_open:
            for key, mask in selector.select(TICK_S):
                key.data(mask)
            visit.tick()
        visit.close()
