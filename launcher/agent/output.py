"""Everything that the workers of a node write, on its way to the launcher."""

from typing import Callable, Dict, List, Tuple

from launcher.agent.conversation import Conversation
from launcher.agent.link import CHUNK_BYTES
from launcher.agent.streams import REPORT, STREAMS, LineReader, Stream
from launcher.wire import events


class Output:
    """The streams of all workers. They outlast an attempt: the next one appends to them."""

    def __init__(self, log_path: Callable[[int, str], str], ranks: List[int]) -> None:
        """Opens the streams; `log_path` names the file of a rank and a stream."""
        self._streams: Dict[Tuple[int, str], Stream] = {
            (rank, name): Stream(log_path(rank, name), CHUNK_BYTES)
            for rank in ranks
            for name in STREAMS
        }
        self._reports = {rank: LineReader(log_path(rank, REPORT)) for rank in ranks}

    def seek(self, offsets: Dict[str, Dict[str, int]]) -> None:
        """Sends each stream from its offset on, one that is not named from its first byte on."""
        for (rank, name), stream in self._streams.items():
            stream.seek(int(offsets.get(str(rank), {}).get(name, 0)))

    def report_lines(self) -> List[Tuple[int, bytes]]:
        """Returns what the workers reported since the last call, with their ranks."""
        return [
            (rank, line) for rank, reader in self._reports.items() for line in reader.read_lines()
        ]

    def send(self, conversation: Conversation) -> None:
        """Sends what is there and what the launcher has room for.

        One piece of each stream in turn, so that a loud worker does not silence the others.
        """
        waiting = dict(self._streams)
        while waiting and conversation.has_room:
            for (rank, name), stream in list(waiting.items()):
                offset = stream.offset
                data = stream.read()
                if data:
                    conversation.emit(events.WorkerOutput(rank, name, offset, data))
                else:
                    del waiting[rank, name]
            conversation.flush()

    def is_drained(self) -> bool:
        """Says whether all that is written was sent."""
        return all(stream.is_drained() for stream in self._streams.values())

    def ends(self) -> List[events.OutputEnded]:
        """Returns the final size and hash of every stream."""
        return [
            events.OutputEnded(rank, name, *stream.digest())
            for (rank, name), stream in self._streams.items()
        ]
