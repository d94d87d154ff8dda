"""Frames: one JSON header line with a byte count, then that many raw bytes.

A header is at most `MAX_HEADER_BYTES` long, a payload at most `MAX_PAYLOAD_BYTES`; both bounds
keep a broken or hostile peer from filling this side's memory. Payload bytes are never decoded,
escaped or base64'd.
"""

import json
from typing import Any, Dict, Iterator, NamedTuple, Optional, Tuple, Union

MAX_HEADER_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
_USUAL_HEADER_BYTES = 512

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


def header_of(kind: str, fields: Dict[str, Any], payload: bytes = b"") -> bytes:
    r"""Returns the header line of one frame, behind which the payload comes as it is.

    >>> header_of("ping", {"sent": 1.5})
    b'{"t":"ping","sent":1.5}\n'
    >>> header_of("worker_output", {"rank": 0}, b"ab")
    b'{"t":"worker_output","rank":0,"n":2}\n'

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
    return line


def encode(kind: str, fields: Dict[str, Any], payload: bytes = b"") -> bytes:
    r"""Returns the bytes of one frame.

    >>> encode("worker_output", {"rank": 0}, b"ab")
    b'{"t":"worker_output","rank":0,"n":2}\nab'

    Raises:
        WireError: as `header_of`.
    """
    return header_of(kind, fields, payload) + payload


class Decoder:
    """Cuts a byte stream into frames, however the bytes are torn on the way.

    A frame that came in one piece is copied once; only one that is torn goes through a buffer.
    """

    def __init__(self) -> None:
        self._begun = bytearray()  # of the line or the payload that has not all come yet
        self._pending: Optional[Dict[str, Any]] = None
        self._missing = 0

    def feed(self, data: Union[bytes, memoryview]) -> Iterator[Frame]:
        """Takes the next bytes and yields every frame that they complete.

        Raises:
            WireError: what came is no frame, or is over the bounds.
        """
        rest = memoryview(data)
        while True:
            if self._pending is None:
                line, rest = self._take_line(rest)
                if line is None:
                    return
                self._pending, self._missing = _parse_header(line)
            if len(self._begun) + len(rest) < self._missing:
                self._begun += rest
                return
            payload, rest = self._take_payload(rest)
            fields, self._pending = self._pending, None
            yield Frame(fields.pop(_KIND), fields, payload)

    def _take_line(self, rest: memoryview) -> "Tuple[Optional[bytes], memoryview]":
        for size in (_USUAL_HEADER_BYTES, MAX_HEADER_BYTES):
            head = bytes(rest[:size])
            end = head.find(b"\n")
            if end >= 0 or len(head) < size:
                break
        length = len(self._begun) + (end if end >= 0 else len(head))
        if length >= MAX_HEADER_BYTES:
            raise WireError("no header line in %d bytes" % length)
        if end < 0:
            self._begun += head
            return None, rest[len(head) :]
        line = bytes(self._begun) + head[:end]
        self._begun.clear()
        return line, rest[end + 1 :]

    def _take_payload(self, rest: memoryview) -> "Tuple[bytes, memoryview]":
        need = self._missing - len(self._begun)
        payload = bytes(rest[:need])
        if self._begun:
            payload = bytes(self._begun) + payload
            self._begun.clear()
        return payload, rest[need:]


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
