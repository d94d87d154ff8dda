"""What a worker's own end says of it, and whether another's death may have brought it about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from launcher.wire import codec, events

# Of what a node or a worker says, so many lines are kept, each so long.
MAX_LINES = 40
MAX_LINE = 500
# A peer or a reader went away first.
_BROKEN_PIPES = ("BrokenPipeError", "ConnectionResetError")


class Raised(NamedTuple):
    """The exception that ended a worker's program.

    Attributes:
        kind: its class.
        words: its last line, as Python prints it.
        trace: the traceback's tail, in lines.
    """

    kind: str
    words: str
    trace: tuple[str, ...] = ()

    @property
    def is_secondary(self) -> bool:
        """Whether somebody else's end most likely brought it about."""
        return self.kind in _BROKEN_PIPES


def read_raised(fields: Mapping[str, object]) -> Raised | None:
    """Returns what a worker's bootstrap reported of an exception, None where that is nothing.

    >>> read_raised({"type": "ValueError", "message": "nan", "trace": ["ValueError: nan"]}).words
    'ValueError: nan'
    """
    kind = fields.get("type")
    if not isinstance(kind, str) or not kind:
        return None
    message = str(fields.get("message") or "")
    words = f"{kind}: {message}" if message else kind
    return Raised(kind, words[:MAX_LINE], _lines(fields.get("trace")))


def read_facts(event: events.WorkerDiagnosed) -> tuple[str, ...]:
    """Returns what a node told of a worker's end."""
    try:
        return _lines(events.unpack_json(event.data))
    except codec.WireError:
        return ()


def _lines(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(str(line)[:MAX_LINE] for line in value[-MAX_LINES:])
