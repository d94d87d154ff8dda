"""What whoever follows a run's logs is told besides: events, and whether a launcher is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.cli.lines import harmless
from launcher.store.runs import KnownRun


class Notices:
    """Reads on in a run's events.jsonl."""

    def __init__(self, known: KnownRun) -> None:
        """Begins with what happens from now on."""
        self._path = Path(known.paths.events)
        self._offset = self._path.stat().st_size if self._path.exists() else 0
        self._rest = b""
        # Somebody should be; where nobody is, that is news.
        self._was_followed = True

    def read(self, known: KnownRun) -> Iterator[str]:
        """Yields what is new, in words."""
        for line in self._new_lines():
            words = _words(line)
            if words:
                yield harmless(words)
        if known.is_followed != self._was_followed and not known.has_ended:
            self._was_followed = known.is_followed
            yield (
                "a launcher follows the run again"
                if known.is_followed
                else f"no launcher follows the run; `flowlaunch attach {known.run_id}` does"
            )

    def _new_lines(self) -> list[bytes]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines


def _words(line: bytes) -> str:
    """Returns what is said of an event, "" for most of them."""
    try:
        fields: dict[str, Any] = json.loads(line)
        kind, node = fields["event"], fields.get("node", "")
        if kind == "run_phase_changed":
            return f"the run is {fields['phase']}" if fields["phase"] != "ended" else ""
        if kind == "worker_exited":
            how = f"signal {fields['signal']}" if fields["signal"] else f"{fields['exit_code']}"
            return f"{node}: rank {fields['rank']} ended with {how}"
        if kind == "log_gap":
            return f"{node}: a part of rank {fields['rank']}'s {fields['stream']} is missing"
        if kind == "log_gap_closed":
            return f"{node}: rank {fields['rank']}'s {fields['stream']} is whole again"
        if kind == "node_troubled":
            return f"{node}: {fields['message']}"
    except (ValueError, KeyError, TypeError):
        return ""
    return ""
