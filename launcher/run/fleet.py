"""The drivers of a run's nodes: those that take part, and those that no longer do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from launcher.core.model import NodeSpec
from launcher.run.bringup import (
    Converse,
    Mode,
    NodeDriver,
    Transports,
    first_commands,
    preparation,
    say_hello,
)
from launcher.run.inbox import Inbox
from launcher.store.job_folder import JobFolder
from launcher.wire import events, order

_JOIN_TICK_S = 0.02


class Fleet:
    """Says to each node what it is to do, over whatever connection there is to it."""

    def __init__(self, run_id: str, transports: Transports, inbox: Inbox, lease_s: float) -> None:
        """Takes what every driver needs; connects to nobody."""
        self._run_id = run_id
        self._transports = transports
        self._inbox = inbox
        self._lease_s = lease_s
        self._drivers: dict[str, NodeDriver] = {}
        self._released: list[NodeDriver] = []
        self._preparations: dict[str, list[events.Command]] = {}

    @property
    def drivers(self) -> dict[str, NodeDriver]:
        """The drivers of the nodes that take part."""
        return dict(self._drivers)

    def prepare(
        self,
        node: NodeSpec,
        ordered: order.NodeOrder,
        folder: JobFolder,
        offer: events.OfferCheckpoint | None,
    ) -> None:
        """Gives a node its order, over a new connection where there is none.

        Args:
            node: the node.
            ordered: what it is to prepare.
            folder: the job's folder.
            offer: the checkpoint that the workers start from.
        """
        self._preparations[node.name] = preparation(ordered, offer)
        known = self._drivers.get(node.name)
        if known is not None and known.is_linked:
            self.repeat_order(node.name)
            return
        self._begin(node, Mode.START, folder, first_commands(ordered, self._lease_s, offer))

    def repeat_order(self, name: str) -> None:
        """Tells a node again what was ordered of it."""
        for command in self._preparations.get(name, []):
            self.send(name, command)

    def attach(self, node: NodeSpec, mode: Mode) -> None:
        """Goes to the run's agent on a node, or to what is left there."""
        self._begin(node, mode, None, say_hello(self._lease_s))

    def succeed(self, name: str) -> None:
        """Has a new agent see to what a dead one left on its node."""
        self.attach(self._drivers[name].node, Mode.SUCCEED)

    def _begin(
        self,
        node: NodeSpec,
        mode: Mode,
        folder: JobFolder | None,
        converse: Converse,
    ) -> None:
        self._retire(node.name)
        driver = NodeDriver(
            node,
            self._transports[node.transport],
            self._inbox,
            converse,
            patience_s=self._lease_s,
        )
        self._drivers[node.name] = driver
        driver.start(self._run_id, folder, mode)

    def _retire(self, name: str) -> None:
        driver = self._drivers.pop(name, None)
        if driver is not None:
            driver.close()
            self._released.append(driver)

    def release_all_but(self, names: Iterable[str]) -> None:
        """Lets go of the nodes that no longer take part; nothing of the run stays on them."""
        for name in set(self._drivers) - set(names):
            self.send(name, events.EndRun(keep=False))
            self._retire(name)

    def send(self, name: str, command: events.Command) -> bool:
        """Tells one node something; returns False where there is no connection. Any thread may."""
        driver = self._drivers.get(name)
        return driver is not None and driver.send(command)

    def broadcast(self, command: events.Command) -> None:
        """Tells every node something."""
        for driver in list(self._drivers.values()):
            driver.send(command)

    def give_up(self, name: str) -> None:
        """Tries no longer to reach a node."""
        self._drivers[name].close()

    @property
    def is_linked(self) -> bool:
        """Whether there is a connection to any node."""
        return any(driver.is_linked for driver in self._drivers.values())

    def close(self, deadline: float, drain: Callable[[], None]) -> None:
        """Lets go of every connection, and waits until its thread has ended.

        Args:
            deadline: when to stop waiting, monotonic seconds.
            drain: takes what is in the inbox, since a driver may wait for room there.
        """
        drivers = [*self._released, *self._drivers.values()]
        for driver in drivers:
            driver.close()
        for driver in drivers:
            while driver.is_alive and time.monotonic() < deadline:
                drain()
                driver.join(_JOIN_TICK_S)
