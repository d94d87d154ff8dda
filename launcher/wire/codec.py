"""Frames: one JSON header line with a byte count, then that many raw bytes.

A header is at most `MAX_HEADER_BYTES` long, a payload at most `MAX_PAYLOAD_BYTES`; both bounds
keep a broken or hostile peer from filling this side's memory. Payload bytes are never decoded,
escaped or base64'd.
"""

import json
from typing import Any, Dict, Iterator, NamedTuple, Optional

MAX_HEADER_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024

_KIND = "t"
_COUNT = "n"


class WireError(Exception):
    """The peer sent something that is no frame. The connection cannot go on."""


class Frame(NamedTuple):
    """One header and its payload.

    Attributes:
        kind: the message's name, e.g. ``worker_exited``.
        fields: the header's other keys.
        payload: the raw bytes after the header line.
    """

    kind: str
    fields: Dict[str, Any]
    payload: bytes


def encode(kind: str, fields: Dict[str, Any], payload: bytes = b"") -> bytes:
    r"""Returns the bytes of one frame.

    >>> encode("ping", {"sent": 1.5})
    b'{"t":"ping","sent":1.5}\n'
    >>> encode("worker_output", {"rank": 0}, b"ab")
    b'{"t":"worker_output","rank":0,"n":2}\nab'

    Raises:
        WireError: the frame would be over the bounds that the other side accepts.
    """
    header = {_KIND: kind}
    header.update(fields)
    if payload:
        header[_COUNT] = len(payload)  # type: ignore[assignment]
    line = json.dumps(header, separators=(",", ":")).encode("ascii") + b"\n"
    if len(line) > MAX_HEADER_BYTES:
        raise WireError("header of %s is %d bytes long" % (kind, len(line)))
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise WireError("payload of %s is %d bytes long" % (kind, len(payload)))
    return line + payload


class Decoder:
    """Cuts a byte stream into frames, however the bytes are torn on the way."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._pending: Optional[Dict[str, Any]] = None
        self._missing = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Takes the next bytes and yields every frame that they complete.

        Raises:
            WireError: what came is no frame, or is over the bounds.
        """
        self._buffer += data
        while True:
            if self._pending is None and not self._take_header():
                return
            if len(self._buffer) < self._missing:
                return
            yield self._take_frame()

    def _take_header(self) -> bool:
        end = self._buffer.find(b"\n", 0, MAX_HEADER_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_HEADER_BYTES:
                raise WireError("no header line in %d bytes" % len(self._buffer))
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._pending, self._missing = _parse_header(line)
        return True

    def _take_frame(self) -> Frame:
        assert self._pending is not None
        fields, self._pending = self._pending, None
        payload = bytes(memoryview(self._buffer)[: self._missing])
        del self._buffer[: self._missing]
        return Frame(fields.pop(_KIND), fields, payload)


def _parse_header(line: bytes) -> "tuple[Dict[str, Any], int]":
    try:
        fields = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise WireError("not a header: %r" % line[:80]) from None
    if not isinstance(fields, dict) or not isinstance(fields.get(_KIND), str):
        raise WireError("not a header: %r" % line[:80])
    count = fields.pop(_COUNT, 0)
    if type(count) is not int or not 0 <= count <= MAX_PAYLOAD_BYTES:
        raise WireError("byte count out of bounds: %r" % (count,))
    return fields, count
