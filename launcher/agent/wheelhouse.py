"""Wheels that the launcher sends to a node without an index, and the ways to build or remove there.

What has arrived stays until a runtime was built from it, so that a transfer that breaks off goes on
where it was. pip proves every wheel by its pinned hash.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import os
import shutil
import socket
from typing import Callable, Dict, Optional, Sequence

from launcher.agent import facts, interpreters, runtime_store
from launcher.agent.children import RuntimeBuildError
from launcher.agent.interpreters import Search
from launcher.agent.prepare import Unusable
from launcher.wire import events

_ARRIVING = ".part"

Build = Callable[[str, Callable[[str, int, int], None], Callable[[], bool]], str]


class Wheelhouse:
    """The directory of this node's wheels; nodes that share a home have one each."""

    def __init__(self) -> None:
        root = runtime_store.runtimes_root(runtime_store.cache_directory())
        name = "%ssent-%s" % (runtime_store.WHEELS_PREFIX, socket.gethostname())
        self.directory = os.path.join(root, name)
        self._sizes: Dict[str, int] = {}

    def offer(self, command: events.OfferWheels) -> events.WheelsWanted:
        """Takes the list of wheels to come and returns how much of each is here.

        Raises:
            Unusable: the disk has no room for them.
        """
        os.makedirs(self.directory, exist_ok=True)
        self._sizes = {
            os.path.basename(name): size for name, size in events.unpack_json(command.data)
        }
        here = {name: self._arrived(name) for name in self._sizes}
        missing = sum(self._sizes.values()) - sum(here.values())
        free = shutil.disk_usage(self.directory).free
        if free < missing:
            raise Unusable(
                "disk_full",
                "%s has %d MB free, the wheels need %d"
                % (self.directory, free >> 20, missing >> 20),
                "make room there, or set FLOWLAUNCH_CACHE in that login to a larger disk",
            )
        lacking = {name: size for name, size in here.items() if size < self._sizes[name]}
        return events.WheelsWanted(events.pack_json(lacking))

    def _arrived(self, name: str) -> int:
        for path in (os.path.join(self.directory, name), self._partial(name)):
            if os.path.exists(path):
                return min(os.path.getsize(path), self._sizes[name])
        return 0

    def _partial(self, name: str) -> str:
        return os.path.join(self.directory, name + _ARRIVING)

    def put(self, piece: events.PutWheel) -> None:
        """Takes the next bytes of a wheel; one that was not offered is none."""
        if piece.name not in self._sizes:
            return
        partial = self._partial(piece.name)
        with open(partial, "r+b" if os.path.exists(partial) else "wb") as file:
            file.seek(piece.offset)
            file.write(piece.data)
            file.truncate()
        if piece.offset + len(piece.data) >= self._sizes[piece.name]:
            os.rename(partial, os.path.join(self.directory, piece.name))

    def remove(self) -> None:
        """Removes what was sent."""
        shutil.rmtree(self.directory, ignore_errors=True)


def build_of(command: events.InstallRuntime) -> Build:
    """Returns what builds the runtime in the way that is asked for."""
    wheels = Wheelhouse() if command.offline else None

    def build(
        cache: str, progress: Callable[[str, int, int], None], should_stop: Callable[[], bool]
    ) -> str:
        from launcher.agent import runtime

        path = command.interpreter
        search = _only(path) if path else interpreters.find_interpreter
        try:
            python = runtime.build_runtime(
                cache,
                progress,
                should_stop,
                wheels=wheels.directory if wheels is not None else None,
                search=search,
            )
        except RuntimeBuildError as error:
            if wheels is not None and error.problem == "hash":
                wheels.remove()
            raise
        if wheels is not None:
            wheels.remove()
        return python

    return build


def _only(path: str) -> Callable[[str, Sequence[str]], Search]:
    """Returns a search that looks at one interpreter alone."""

    def search(cache: str, pythons: Sequence[str]) -> Search:
        whole = os.path.expanduser(path)
        answer = interpreters.probe(whole, pythons)
        if isinstance(answer, interpreters.Interpreter):
            return Search(answer, (), (whole,))
        raise RuntimeBuildError(
            "interpreter",
            "the runtime cannot be built on %s: it %s" % (whole, answer.reason),
            "name a CPython %s with --python, or leave the option out" % " or ".join(pythons),
        )

    return search


def remove_runtime(run_dir: str) -> events.Event:
    """Removes every runtime here, unless a run goes on that may use it."""
    for left in facts.leftovers(run_dir):
        if left["pid"] and not left["run"].startswith(("check-", "provision-")):
            return events.NodeUnusable(
                "in_use",
                "run %s goes on there and may use the runtime" % left["run"],
                "let it end, or end it: `flowlaunch stop %s`" % left["run"],
            )
    return events.RuntimeRemoved(runtime_store.remove_runtime(runtime_store.cache_directory()))


def open_wheelhouse(
    command: events.OfferWheels, before: Optional[Wheelhouse]
) -> "tuple[Wheelhouse, events.Event]":
    """Returns the wheelhouse, and what it lacks of the wheels that are offered."""
    wheelhouse = before or Wheelhouse()
    return wheelhouse, wheelhouse.offer(command)
