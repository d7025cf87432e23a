"""Sealing at rest: what Secrets hold is encrypted before it reaches the store."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kuma.base.errors import Misconfigured, StoreCorrupt
from kuma.resources.resource import Key

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = b"\x01"


class Sealer(Protocol):
    """Seals the content of one resource so that it opens as the content of that resource only."""

    def seal(self, key: Key, content: bytes) -> bytes:
        """The sealed form of `content`."""
        ...

    def open(self, key: Key, sealed: bytes) -> bytes:
        """What was sealed.

        Raises:
            StoreCorrupt: sealed under another key or for another resource, or damaged.
        """
        ...


class AesGcmSealer:
    """AES-256-GCM with random nonces (NIST SP 800-38D §8.2.2); the resource's key is the associated data."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, key: Key, content: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORMAT + nonce + self._cipher.encrypt(nonce, content, _associated(key))

    def open(self, key: Key, sealed: bytes) -> bytes:
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _FORMAT:
                raise InvalidTag
            return self._cipher.decrypt(nonce, body, _associated(key))
        except (InvalidTag, ValueError):
            raise StoreCorrupt(
                f"{key} cannot be opened: it was sealed with another key-encryption key, or is damaged"
            ) from None


def _associated(key: Key) -> bytes:
    return "\0".join((key.kind, key.mesh, key.name)).encode()


def load_key(path: Path, *, may_create: bool) -> bytes:
    """The key-encryption key in `path`; made if it is not there and `may_create`, that is, if nothing is sealed yet.

    Raises:
        Misconfigured: it is missing, readable by others, or no key.
    """
    if may_create and not path.exists():
        _create(path)
    try:
        status = path.stat()
        text = path.read_text()
    except FileNotFoundError:
        raise Misconfigured(
            f"the key-encryption key {path} is missing, and the store holds Secrets sealed with it. "
            "Put the file back from a backup; no new key can open them"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read the key-encryption key {path}: {error}") from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise Misconfigured(f"the key-encryption key {path} can be read by others; run: chmod 600 {path}")
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise Misconfigured(f"{path} does not hold a key-encryption key: {KEY_BYTES} bytes in base64 are needed")
    return key


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
