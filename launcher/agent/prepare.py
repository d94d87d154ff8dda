"""Getting a node ready for a run: files, folder, interpreter, port."""

import os
import shutil
import threading
from typing import TYPE_CHECKING, Callable, Optional

from launcher.agent import ports, runtime_store
from launcher.agent.files import FileStore, build_tree
from launcher.wire import events
from launcher.wire.order import NodeOrder

if TYPE_CHECKING:
    from launcher.agent.wheelhouse import Build

# Logs, reports and a checkpoint need room beyond the files themselves.
MIN_FREE_BYTES = 64 * 1024 * 1024


class Unusable(Exception):
    """The node cannot do its part. Its words become a `NodeUnusable` event."""

    def __init__(self, problem: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.event = events.NodeUnusable(problem, message, hint)


def require_space(directory: str, order: NodeOrder) -> None:
    """Raises Unusable where the disk is too full for the run's files."""
    wanted = sum(file.size for file in order.files) + MIN_FREE_BYTES
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise Unusable(
            "disk_full",
            "%s has %d MB free, the run needs %d MB" % (directory, free >> 20, wanted >> 20),
            "make room there, or set the node's workdir to a larger disk",
        )


def require_port(order: NodeOrder) -> int:
    """Returns the rendezvous port of this node, 0 where it hosts none.

    Raises:
        Unusable: the port that the manifest names is taken.
    """
    if not order.hosts_rendezvous:
        return 0
    if order.ctrl_port == 0:
        return ports.choose_free()
    if ports.is_free(order.ctrl_port):
        return order.ctrl_port
    who = ports.holder(order.ctrl_port)
    raise Unusable(
        "port_taken",
        "ctrl_port %d is taken%s" % (order.ctrl_port, " by " + who if who else ""),
        'end that program, choose another ctrl_port, or write "ctrl_port: auto"',
    )


def require_tree(store: FileStore, order: NodeOrder, directory: str) -> str:
    """Builds the job's folder and returns its proven hash.

    Raises:
        Unusable: what stands there is not what was ordered, or the disk does not take it.
    """
    try:
        tree = build_tree(store, order.files, directory)
        os.makedirs(os.path.join(directory, order.workdir), exist_ok=True)
    except OSError as error:
        raise disk_problem(error) from None
    if tree != order.tree:
        raise Unusable(
            "tree_differs",
            "the job's folder differs here after it was copied",
            "start again: a kept file that was damaged is asked for anew",
        )
    return tree


def python_gone(python: str) -> Unusable:
    """Returns the words for workers that could not be started for want of their interpreter."""
    return Unusable(
        "no_python",
        "its Python is gone: %s" % python,
        "run `flowlaunch provision`, or mend the node's python in the manifest",
    )


def disk_problem(error: OSError) -> Unusable:
    """Returns the words for a file that could not be written."""
    return Unusable(
        "disk",
        "%s: %s" % (error.filename or "writing a file", error.strerror or error),
        "make room or mend the permissions there, or set the node's workdir elsewhere",
    )


def file_differs() -> Unusable:
    """Returns the words for a file that came with other bytes than it was announced with."""
    return Unusable(
        "file_differs",
        "a file of the job's folder arrived changed",
        "was it written to while the run started? Keep such files out of the folder, start again",
    )


def find_python(order: NodeOrder) -> Optional[str]:
    """Returns the workers' interpreter, or None where the runtime must be built first.

    Raises:
        Unusable: there is none, and none may be built.
    """
    if order.python == "auto":
        found = runtime_store.find_runtime(runtime_store.cache_directory())
        if found is None and not order.build_runtime:
            raise Unusable(
                "no_runtime",
                "the OneFlow runtime is missing or damaged",
                "run `flowlaunch provision`, or set the node's python to one with OneFlow 0.9",
            )
        return found
    path = os.path.expanduser(order.python)
    whole = shutil.which(path)
    if whole is None:
        raise Unusable(
            "no_python",
            "python %s is not an executable there" % order.python,
            "mend the node's python in the manifest, or write \"auto\" for flowlaunch's runtime",
        )
    return whole


class RuntimeBuild:
    """The build of the runtime in a thread, so that the agent goes on answering."""

    def __init__(
        self, emit: Callable[[events.Event], None], build: "Optional[Build]" = None
    ) -> None:
        """Starts the build.

        Args:
            emit: takes its progress, from the thread.
            build: builds in another way than the usual one.
        """
        self.python: Optional[str] = None
        self.problem: Optional[Unusable] = None
        self._emit = emit
        self._how = build
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._build, name="runtime-build")
        self._thread.start()

    def _build(self) -> None:
        # A run that finds its runtime has no use for the code that builds one.
        from launcher.agent import runtime

        try:
            build = self._how or runtime.build_runtime
            self.python = build(runtime_store.cache_directory(), self._progress, self._stop.is_set)
        except runtime.RuntimeBuildError as error:
            self.problem = Unusable("no_runtime", error.message, error.hint)
        except OSError as error:
            self.problem = disk_problem(error)

    def _progress(self, stage: str, done: int, total: int) -> None:
        self._emit(events.RuntimeProgress(stage, done, total))

    @property
    def is_done(self) -> bool:
        """Whether it ended, well or not."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Ends the build and waits for that."""
        self._stop.set()
        self._thread.join()
