"""What was ordered of this node, and how far it is with getting ready for it.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import os
import time
from typing import AbstractSet, Callable, Optional

from launcher.agent import leftovers, prepare
from launcher.agent.files import FileStore
from launcher.agent.gathering import Gatherer, Trace
from launcher.agent.memory import RunMemory
from launcher.agent.resumption import Resumption
from launcher.agent.services import Services
from launcher.wire import events, order

Emit = Callable[[events.Event], None]


class Preparation:
    """The job's folder, the interpreter, the port and the checkpoint of the present attempt.

    Attributes:
        order: what was ordered last, None where nothing was.
        python: the workers' interpreter, "" until it is known.
    """

    def __init__(
        self, root: str, run_dir: str, memory: RunMemory, services: Services, emit: Emit
    ) -> None:
        """Goes on from what an earlier agent of the run had been ordered.

        Args:
            root: flowlaunch's directory on this node.
            run_dir: where the run keeps everything on this node.
            memory: what is kept of the run for a later agent.
            services: builds the runtime where it is missing.
            emit: tells the launcher something.
        """
        self._run_dir = run_dir
        self._files = FileStore(os.path.join(root, "files"))
        self._resumption = Resumption(root, run_dir, emit)
        self._memory = memory
        self._services = services
        self._emit = emit
        self.order, self._built_at = memory.order()
        self.python = ""
        self._tree = self.order.tree if self.order is not None else ""
        self._wanted: "set[str]" = set()
        self._prepared: Optional[events.NodePrepared] = None

    @property
    def is_detached(self) -> bool:
        """Whether the run outlives its launcher."""
        return self.order is not None and self.order.detached

    @property
    def folder(self) -> str:
        """The job's folder on this node."""
        return os.path.join(self._run_dir, "work")

    @property
    def workdir(self) -> str:
        """The workers' working directory."""
        assert self.order is not None
        return os.path.join(self.folder, self.order.workdir)

    def begin(self, ordered: order.NodeOrder) -> None:
        """Takes an order, and asks for the files that are not here.

        Raises:
            prepare.Unusable: the node cannot do its part.
        """
        self.order = ordered
        prepare.require_space(self._run_dir, ordered)
        missing = self._files.missing(ordered.files)
        self._wanted = set(missing)
        self._emit(events.FilesWanted(events.pack_json(missing)))
        if not self._wanted:
            self._on_files_complete(ordered)

    def put(self, piece: events.PutFile) -> None:
        """Takes a piece of a file.

        Raises:
            prepare.Unusable: the node cannot do its part.
            FileDiffersError: the file is not the one that was announced.
        """
        assert self.order is not None
        if self._files.put(piece.sha256, piece.offset, piece.size, piece.data):
            self._wanted.discard(piece.sha256)
            if not self._wanted:
                self._on_files_complete(self.order)

    def _on_files_complete(self, ordered: order.NodeOrder) -> None:
        self._tree = prepare.require_tree(self._files, ordered, self.folder)
        self._built_at = time.time()
        self._memory.keep_order(ordered)
        python = prepare.find_python(ordered)
        if python is None:
            self._services.start_build()
        else:
            self._on_python(ordered, python)

    def _on_python(self, ordered: order.NodeOrder, python: str) -> None:
        self.python = python
        port = prepare.require_port(ordered)
        self._prepared = events.NodePrepared(tree=self._tree, python=python, ctrl_port=port)

    def offer(self, command: events.OfferCheckpoint) -> None:
        """Takes the offer of a checkpoint that the workers are to start from."""
        self._resumption.offer(command)

    def forget_offer(self) -> None:
        """Wants no checkpoint any more: who offered it is gone."""
        self._resumption.forget()

    def put_checkpoint_file(self, piece: events.PutCheckpointFile) -> None:
        """Takes a piece of such a checkpoint."""
        self._resumption.put(piece)

    def tick(self) -> Optional[events.NodePrepared]:
        """Goes on; returns, once, that the node is prepared.

        It is once the checkpoint that its workers start from stands there too.

        Raises:
            prepare.Unusable: the node cannot do its part.
        """
        built = self._services.tick()
        if built is not None and self.order is not None:
            self._on_python(self.order, built)
        self._resumption.tick()
        if self._prepared is None or self._resumption.is_pending:
            return None
        prepared, self._prepared = self._prepared, None
        return prepared

    def gatherer(self) -> Optional[Gatherer]:
        """Returns what looks for the paths that are to be collected, None where none are."""
        if self.order is None or not self.order.collect or not self._tree:
            return None
        return Gatherer(self.folder, self.order, self._built_at)

    def written(self, collected: AbstractSet[Trace]) -> leftovers.Leftovers:
        """Returns how much the job wrote into its folder, besides what was collected."""
        if self.order is None or not self._tree:
            return leftovers.Leftovers(0, 0)
        shipped = [file.path for file in self.order.files]
        return leftovers.written_files(self.folder, shipped, self._built_at, collected)
