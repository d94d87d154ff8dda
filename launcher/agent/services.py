"""What a node does for a launcher besides a run: facts, dialling, wheels, the runtime's build.

A run needs few of these, so the code behind each is imported where it is asked for.
"""

import queue
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from launcher.agent import errands, prepare, runtime_store
from launcher.wire import events

if TYPE_CHECKING:
    from launcher.agent.dialling import Doors
    from launcher.agent.wheelhouse import Build, Wheelhouse

Emit = Callable[[events.Event], None]


class Services:
    """The errands of one agent. What takes its time is done in threads."""

    def __init__(self, run_dir: str, emit: Emit) -> None:
        """Prepares them; nothing is started.

        Args:
            run_dir: where the run keeps everything on this node.
            emit: tells the launcher something, from the agent's own thread.
        """
        self._run_dir = run_dir
        self._emit = emit
        self._from_threads: "queue.Queue[events.Event]" = queue.Queue()
        self._build: Optional[prepare.RuntimeBuild] = None
        self._doors: "Optional[Doors]" = None
        self._wheelhouse: "Optional[Wheelhouse]" = None

    def obey(self, command: events.Message) -> bool:
        """Does what a command asks; returns whether it is one of these errands."""
        obey = _HANDLERS.get(type(command))
        if obey is not None:
            obey(self, command)
        return obey is not None

    def start(self, name: str, work: Callable[[], events.Event]) -> None:
        """Does some work in a thread of its own, and tells what came of it."""
        errands.start(name, work, self._from_threads.put)

    # The runtime

    def start_build(self, build: "Optional[Build]" = None) -> None:
        """Builds the runtime in the background, unless that is under way."""
        if self._build is None:
            self._build = prepare.RuntimeBuild(self._from_threads.put, build)

    def stop_build(self) -> None:
        """Ends a build that is under way."""
        if self._build is not None:
            self._build.cancel()
            self._build = None

    def tick(self) -> Optional[str]:
        """Tells what the threads have found; returns the runtime's Python if it was just built."""
        while not self._from_threads.empty():
            self._emit(self._from_threads.get())
        build = self._build
        if build is None or not build.is_done:
            return None
        self._build = None
        if build.problem is not None:
            self._emit(build.problem.event)
            return None
        assert build.python is not None
        self._emit(events.RuntimeReady(build.python, built=True))
        return build.python

    def _on_build_runtime(self, command: events.BuildRuntime) -> None:
        found = runtime_store.find_runtime(runtime_store.cache_directory())
        if found is None:
            self.start_build()
        else:
            self._emit(events.RuntimeReady(found, built=False))

    def _on_install_runtime(self, command: events.InstallRuntime) -> None:
        from launcher.agent import wheelhouse

        self.start_build(wheelhouse.build_of(command))

    def _on_remove_runtime(self, command: events.RemoveRuntime) -> None:
        from launcher.agent import errands, wheelhouse

        remove = wheelhouse.remove_runtime
        errands.start("remove", lambda: remove(self._run_dir), self._from_threads.put)

    # Facts and the network

    def _on_report_facts(self, command: events.ReportFacts) -> None:
        from launcher.agent import errands, facts

        errands.start("facts", lambda: facts.report(command, self._run_dir), self._from_threads.put)

    def _on_bind_ports(self, command: events.BindPorts) -> None:
        from launcher.agent import dialling

        self._doors, bound = dialling.open_doors(command, self._doors)
        self._emit(bound)

    def close_doors(self) -> None:
        """Lets go of all ports that it listens on: a launcher that was cut off could not say so."""
        if self._doors is not None:
            self._doors.close()
            self._doors = None

    def _on_dial_peers(self, command: events.DialPeers) -> None:
        from launcher.agent import dialling, errands

        errands.start("dialling", lambda: dialling.answer(command), self._from_threads.put)

    # Wheels

    def _on_offer_wheels(self, command: events.OfferWheels) -> None:
        from launcher.agent import wheelhouse

        self._wheelhouse, wanted = wheelhouse.open_wheelhouse(command, self._wheelhouse)
        self._emit(wanted)

    def _on_put_wheel(self, command: events.PutWheel) -> None:
        if self._wheelhouse is not None:
            self._wheelhouse.put(command)


_HANDLERS: Dict[type, Callable[[Any, Any], None]] = {
    events.BuildRuntime: Services._on_build_runtime,
    events.InstallRuntime: Services._on_install_runtime,
    events.RemoveRuntime: Services._on_remove_runtime,
    events.ReportFacts: Services._on_report_facts,
    events.BindPorts: Services._on_bind_ports,
    events.DialPeers: Services._on_dial_peers,
    events.OfferWheels: Services._on_offer_wheels,
    events.PutWheel: Services._on_put_wheel,
}
