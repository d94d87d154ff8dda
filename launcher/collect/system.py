"""How busy the nodes are, as their agents measure it: kept in a file, a line a measurement."""

from __future__ import annotations

import json
from pathlib import Path

from launcher.core.usage import Usage, usage_fields, usage_of
from launcher.store.atomic import write_whole
from launcher.store.run_record import store_error
from launcher.wire import codec, events


class SystemLog:
    """Keeps what the agents measure."""

    def __init__(self, path: Path) -> None:
        """Goes on behind what is in the file."""
        self._path = path
        self._file = path.open("ab", buffering=0)

    def take(self, node: str, measured: events.NodeMeasured, ahead_s: float) -> Usage:
        """Keeps a measurement and returns it.

        Args:
            node: where it was taken.
            measured: what came.
            ahead_s: by how much that node's clock is ahead; the file has this machine's time.

        Raises:
            StoreError: this machine's disk does not take it.
        """
        try:
            usage = usage_of(events.unpack_json(measured.data))
        except codec.WireError:
            usage = Usage()
        time = round(measured.clock - ahead_s, 3)
        line = json.dumps({"time": time, "node": node, **usage_fields(usage)})
        try:
            write_whole(self._file, line.encode() + b"\n")
        except OSError as error:
            raise store_error(error, self._path) from None
        return usage

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()
