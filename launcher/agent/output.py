"""Everything that the workers of a node write, on its way to the launcher."""

import time
from typing import Dict, List, Optional, Tuple

from launcher.agent.conversation import Conversation
from launcher.agent.link import CHUNK_BYTES
from launcher.agent.streams import REPORT, STREAMS, LineReader, Stream, log_path
from launcher.wire import events

# Small writes are joined for as long as this.
JOIN_S = 0.03
Offsets = Dict[str, Dict[str, int]]


class Output:
    """The streams of all workers. They outlast an attempt: the next one appends to them."""

    def __init__(self, logs: str, ranks: List[int], max_bytes: int) -> None:
        """Opens the streams.

        Args:
            logs: the directory of the files.
            ranks: the workers.
            max_bytes: what may stay here of a stream once it is elsewhere; 0 is all of it.
        """
        self._logs = logs
        self._streams: Dict[Tuple[int, str], Stream] = {}
        self._reports: Dict[int, LineReader] = {}
        self._max_bytes = max_bytes
        self._unsent: Dict[Tuple[int, str], int] = {}
        self._sent_at: Dict[Tuple[int, str], float] = {}
        self.add(ranks)

    def add(self, ranks: List[int]) -> None:
        """Opens the streams of ranks that were not here before."""
        for rank in ranks:
            if rank not in self._reports:
                for name in STREAMS:
                    path = log_path(self._logs, rank, name)
                    self._streams[rank, name] = Stream(path, CHUNK_BYTES)
                self._reports[rank] = LineReader(log_path(self._logs, rank, REPORT))

    def sizes(self) -> Dict[Tuple[int, str], int]:
        """Returns how much is written of each stream."""
        return {key: stream.size() for key, stream in self._streams.items()}

    def seek(self, offsets: Offsets) -> None:
        """Sends each stream from its offset on, one that is not named from its first byte on."""
        for (rank, name), stream in self._streams.items():
            stream.seek(int(offsets.get(str(rank), {}).get(name, 0)))

    def release(self, offsets: Offsets) -> Optional[OSError]:
        """Gives back the disk of what is elsewhere, where that was ordered.

        Returns:
            Why it cannot be done on this file system, or None.
        """
        if not self._max_bytes:
            return None
        try:
            for (rank, name), stream in self._streams.items():
                # Reports are read here too, and are small.
                if name != REPORT:
                    offset = int(offsets.get(str(rank), {}).get(name, 0))
                    stream.release(offset, self._max_bytes)
        except OSError as error:
            # It will not be able to later either.
            self._max_bytes = 0
            return error
        return None

    def report_lines(self) -> List[Tuple[int, bytes]]:
        """Returns what the workers reported since the last call, with their ranks."""
        return [
            (rank, line) for rank, reader in self._reports.items() for line in reader.read_lines()
        ]

    def send(self, conversation: Conversation) -> None:
        """Sends what the last look found and what the launcher has room for.

        One piece of each stream in turn, so that a loud worker does not silence the others.
        """
        waiting = self._due(time.monotonic())
        while waiting and conversation.has_room:
            for (rank, name), stream in list(waiting.items()):
                offset = stream.offset
                data = stream.read()
                if data:
                    clock = stream.seen.clock_of(offset)
                    conversation.emit(events.WorkerOutput(rank, name, offset, clock, data))
                else:
                    del waiting[rank, name]
            conversation.flush()

    def look(self) -> None:
        """Notes how far every worker is, whether anybody listens or not."""
        clock = time.time()
        for key, stream in self._streams.items():
            self._unsent[key] = stream.look(clock)

    def _due(self, now: float) -> Dict[Tuple[int, str], Stream]:
        """Returns the streams with much to send, or with something that has waited."""
        due = {}
        for key, stream in self._streams.items():
            unsent = self._unsent.get(key, 0)
            if unsent >= CHUNK_BYTES or (unsent and now - self._sent_at.get(key, 0.0) >= JOIN_S):
                due[key] = stream
                self._sent_at[key] = now
        return due

    def is_drained(self) -> bool:
        """Says whether all that is written was sent."""
        return all(stream.is_drained() for stream in self._streams.values())

    def ends(self) -> List[events.OutputEnded]:
        """Returns the final size and hash of every stream."""
        return [
            events.OutputEnded(rank, name, *stream.digest())
            for (rank, name), stream in self._streams.items()
        ]
