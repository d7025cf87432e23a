"""Sealing at rest: what Secrets hold is encrypted before it reaches the store."""

from __future__ import annotations

import base64
import hashlib
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kuma.base import files
from kuma.base.errors import Misconfigured, StoreCorrupt
from kuma.resources.resource import Key

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = b"\x01"


class Sealer(Protocol):
    """Seals the content of one resource so that it opens as the content of that resource only."""

    def seal(self, key: Key, content: bytes) -> bytes:
        """Encrypts the content of one resource so that it opens as the content of that resource only."""
        ...

    def open(self, key: Key, sealed: bytes) -> bytes:
        """Decrypts what was sealed.

        Raises:
            StoreCorrupt: sealed under another key or for another resource, or damaged.
        """
        ...


class AesGcmSealer:
    """AES-256-GCM with random nonces (NIST SP 800-38D §8.2.2); the resource's key is the associated data.

    Seals with the first of `keys`, and opens what was sealed with any of them.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.keys = tuple(keys)
        self._ciphers = [AESGCM(key) for key in keys]

    def seal(self, key: Key, content: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORMAT + nonce + self._ciphers[0].encrypt(nonce, content, _associated(key))

    def open(self, key: Key, sealed: bytes) -> bytes:
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        for cipher in self._ciphers if sealed[:1] == _FORMAT else ():
            with suppress(InvalidTag, ValueError):
                return cipher.decrypt(nonce, body, _associated(key))
        raise StoreCorrupt(
            f"{key} cannot be opened: it was sealed with another key-encryption key, or is damaged"
        ) from None


def _associated(key: Key) -> bytes:
    return "\0".join((key.kind, key.mesh, key.name)).encode()


class KeyFile:
    """The file with the key-encryption keys, one a line in base64, the one that seals first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = path.with_name(f"{path.name}.next")
        """Where the key is that is to follow, until the store is sealed with it."""
        self._first = path.with_name(f".{path.name}.first")
        """Where a new store's key is until the store exists: a key in its own place says that there is a store."""

    def exists(self) -> bool:
        """Tells whether there is a key in its place."""
        return self.path.exists()

    def begin(self) -> tuple[bytes, ...]:
        """Returns a key for a new store, which `settle` puts in its place.

        Raises:
            Misconfigured: it cannot be written.
        """
        keys = (new_key(),)
        self._write(self._first, keys)
        return keys

    def settle(self) -> None:
        """Puts the key of a store that exists in its place, if it is not there yet."""
        if not self._first.exists():
            return
        try:
            if self.path.exists():
                self._first.unlink()
            else:
                files.move(self._first, self.path)
        except OSError as error:
            raise Misconfigured(f"cannot write the key-encryption key {self.path}: {error.strerror}") from None

    def load(self) -> tuple[bytes, ...]:
        """Returns the keys.

        Raises:
            Misconfigured: the file is missing, readable by others, or holds something else.
        """
        path = self._first if self._first.exists() and not self.path.exists() else self.path
        files.warn_of_readers(path)
        return _read(path)

    def prepare(self) -> Path:
        """Makes a key that is to follow, and returns where it is.

        Raises:
            Misconfigured: there is one already, or it cannot be written.
        """
        if self._next.exists():
            raise Misconfigured(
                f"there is a next key already: {self._next}. Copy it to all control planes, and run kumactl rekey"
            )
        self._write(self._next, [new_key()])
        return self._next

    def following(self) -> bytes | None:
        """Returns the key that is to follow; None if there is none.

        Raises:
            Misconfigured: the file is readable by others, or holds something else.
        """
        try:
            return _read(self._next)[0] if self._next.exists() else None
        except Misconfigured:
            if self._next.exists():
                raise
            return None  # another process that uses the file has just settled on it

    def settle_on(self, key: bytes) -> None:
        """Keeps only the key that the store is sealed with now.

        Raises:
            Misconfigured: it cannot be written.
        """
        self.save([key])
        try:
            if self.following() == key:
                self._next.unlink(missing_ok=True)
        except OSError as error:
            raise Misconfigured(f"cannot remove {self._next}: {error.strerror}") from None

    def save(self, keys: Sequence[bytes]) -> None:
        """Replace the file at once; it has the new content, or the old one, whatever happens meanwhile.

        Raises:
            Misconfigured: it cannot be written.
        """
        self._write(self.path, keys)

    def _write(self, path: Path, keys: Sequence[bytes]) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with files.one_at_a_time(path.parent):  # workers of one control plane share the file
                files.replace(path, b"".join(base64.b64encode(key) + b"\n" for key in keys))
        except OSError as error:
            raise Misconfigured(f"cannot write the key-encryption key {path}: {error.strerror}") from None


def _read(path: Path) -> tuple[bytes, ...]:
    try:
        status = path.stat()
        lines = files.content(path).decode(errors="replace").split()  # an error of decoding would show some of a key
    except FileNotFoundError:
        raise Misconfigured(
            f"the key-encryption key {path} is missing, and the store holds Secrets sealed with it. "
            "Put the file back from a backup; no new key can open them"
        ) from None
    except OSError as error:
        raise Misconfigured(f"cannot read the key-encryption key {path}: {error}") from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise Misconfigured(f"the key-encryption key {path} can be read by others; run: chmod 600 {path}")
    keys = tuple(_decoded(line) for line in lines)
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise Misconfigured(f"{path} does not hold a key-encryption key: {KEY_BYTES} bytes in base64 are needed")
    return keys


def new_key() -> bytes:
    """Returns a new key-encryption key."""
    return secrets.token_bytes(KEY_BYTES)


def key_id(key: bytes) -> str:
    """Returns a name of a key that may be told: nobody finds 32 random bytes by their hash."""
    return hashlib.sha256(b"kuma key-encryption key\0" + key).hexdigest()[:16]


def _decoded(line: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except ValueError:
        return b""
