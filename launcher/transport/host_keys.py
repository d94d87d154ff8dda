"""known_hosts: what is known of a server's keys, and what follows from the key that it shows.

Keys are their public blobs here (the bytes that stand in base64 in the file), so that this room
needs no SSH library and a key type that the library does not know still counts as known.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.transport.ssh_config import any_matches

DEFAULT_PORT = 22
REVOKED = "@revoked"
AUTHORITY = "@cert-authority"


class Verdict(enum.Enum):
    """What known_hosts says of a key that a server shows."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class KnownKey:
    """One entry of a known_hosts file.

    Attributes:
        marker: "", ``@revoked`` or ``@cert-authority``.
        names: the first field, as it stands: names, patterns or one hash.
        where: ``file:line``.
    """

    marker: str
    names: str
    key_type: str
    blob: bytes
    where: str

    def is_for(self, name: str) -> bool:
        """Says whether the entry is about a server of this name (``host`` or ``[host]:port``)."""
        if self.names.startswith("|1|"):
            return _hash_matches(self.names, name)
        return any_matches(self.names.lower().split(","), name)


def fingerprint(blob: bytes) -> str:
    """Returns a key's fingerprint as OpenSSH prints it.

    >>> fingerprint(b"")
    'SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU'
    """
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def entry_name(host: str, port: int) -> str:
    """Returns how known_hosts calls a server.

    >>> entry_name("Far.Example", 22), entry_name("far", 2222)
    ('far.example', '[far]:2222')
    """
    return host.lower() if port == DEFAULT_PORT else f"[{host.lower()}]:{port}"


def read_known_hosts(path: Path) -> Iterator[KnownKey]:
    """Yields the entries of one file; a file that is not there has none, a bad line is skipped.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    for number, line in enumerate(text.splitlines(), 1):
        entry = _parse(line, f"{path}:{number}")
        if entry is not None:
            yield entry


def entries_for(entries: Sequence[KnownKey], name: str) -> tuple[KnownKey, ...]:
    """Returns the entries that are about one server, in file order."""
    return tuple(entry for entry in entries if entry.is_for(name))


def judge(entries: Sequence[KnownKey], blob: bytes) -> tuple[Verdict, tuple[KnownKey, ...]]:
    """Says what follows from a shown key, given the entries about its server.

    A server that shows a key of a type not listed, though it was asked for the listed types
    first, no longer has the key that is known: that counts as changed, too.

    Returns:
        the verdict, and the entries that it rests on.
    """
    same = tuple(entry for entry in entries if entry.blob == blob)
    revoked = tuple(entry for entry in same if entry.marker == REVOKED)
    if revoked:
        return Verdict.REVOKED, revoked
    known = tuple(entry for entry in same if not entry.marker)
    if known:
        return Verdict.KNOWN, known
    others = tuple(entry for entry in entries if not entry.marker)
    return (Verdict.CHANGED if others else Verdict.UNKNOWN), others


def known_line(name: str, key_type: str, blob: bytes, *, hashed: bool) -> str:
    """Returns the line that makes a key known, its name hashed where that is wished."""
    shown = _hashed(name, os.urandom(20)) if hashed else name
    return f"{shown} {key_type} {base64.b64encode(blob).decode()}\n"


def record(path: Path, line: str) -> None:
    """Appends a line to a known_hosts file, which is made where it is missing.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(fd, "rb+", buffering=0) as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode())


def _parse(line: str, where: str) -> KnownKey | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    if len(words) < 3:
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except binascii.Error:
        return None
    return KnownKey(marker, words[0], words[1], blob, where)


def _hashed(name: str, salt: bytes) -> str:
    digest = hmac.new(salt, name.encode(), "sha1").digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _hash_matches(field: str, name: str) -> bool:
    try:
        salt = base64.b64decode(field.split("|")[2], validate=True)
    except (IndexError, binascii.Error):
        return False
    return hmac.compare_digest(_hashed(name, salt), field)
