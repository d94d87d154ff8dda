"""Keys made at test time; none is ever committed."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


@dataclass(frozen=True)
class KeyPair:
    """A private key file with its public half beside it."""

    path: Path
    public: str

    @property
    def fingerprint(self) -> str:
        blob = base64.b64decode(self.public.split()[1])
        digest = hashlib.sha256(blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _generate(kind: str) -> ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ecdsa":
        return ec.generate_private_key(ec.SECP256R1())  # type: ignore[return-value]
    raise ValueError(kind)


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> KeyPair:
    """Writes a new key pair as ssh-keygen would and returns it."""
    key = _generate(kind)
    lock: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, lock))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    Path(f"{path}.pub").write_text(f"{public} {path.name}\n")
    return KeyPair(path, public)
