"""What an agent leaves on the disk for the one that comes after it.

An agent may be killed, or leave when its launcher was gone for too long. Who comes later, to the
same run's directory, learns from here what was ordered and what had happened. Environment values
are not kept: a secret may be among them.
"""

import os
from typing import List, Optional, Tuple

from launcher.wire import codec, events, order

OF_AN_ATTEMPT = (
    events.WorkerStarted, events.RendezvousListening, events.WorkerExited, events.WorkersStopped,
    events.WorkerDiagnosed,
    events.LeaseEnded,
)  # fmt: skip


class RunMemory:
    """The order, the news and the last words of a run's agent, in the run's directory."""

    def __init__(self, run_dir: str) -> None:
        """Names the files; nothing is read or written."""
        self._order = os.path.join(run_dir, "order.json")
        self._news = os.path.join(run_dir, "news")
        self._farewell = os.path.join(run_dir, "farewell")

    def keep_order(self, ordered: order.NodeOrder) -> None:
        """Keeps what was ordered, without any worker's environment."""
        bare = [worker._replace(env={}) for worker in ordered.workers]
        _replace(self._order, order.pack(ordered._replace(workers=bare)))

    def order(self) -> "Tuple[Optional[order.NodeOrder], float]":
        """Returns what was ordered last, None where nothing was, and when."""
        try:
            with open(self._order, "rb") as file:
                return order.unpack(file.read()), os.fstat(file.fileno()).st_mtime
        except (OSError, codec.WireError):
            return None, 0.0

    def keep_news(self, event: events.Event) -> None:
        """Adds an event that every later launcher must hear of."""
        with open(self._news, "ab") as file:
            file.write(events.encode(event))

    def forget_attempt(self, kept: List[events.Event]) -> None:
        """Keeps these events alone: a new attempt begins."""
        _replace(self._news, b"".join(events.encode(event) for event in kept))

    def news(self) -> List[events.Event]:
        """Returns the events that were kept; a torn one at the end is left out."""
        try:
            with open(self._news, "rb") as file:
                frames = codec.Decoder().feed(file.read())
                return [events.decode(frame) for frame in frames]  # type: ignore[misc]
        except (OSError, codec.WireError):
            return []

    def say_farewell(self, words: str) -> None:
        """Keeps why the agent left by itself."""
        _replace(self._farewell, words.encode("utf-8"))

    def farewell(self) -> str:
        """Returns why the agent left by itself, "" where it did not say."""
        try:
            with open(self._farewell, encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""


def _replace(path: str, data: bytes) -> None:
    fresh = path + ".new"
    with open(fresh, "wb") as file:
        file.write(data)
    os.replace(fresh, path)
