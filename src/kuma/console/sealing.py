"""What the console seals: under a key that all control planes over a store share, and nobody else has."""

from __future__ import annotations

import secrets
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kuma.base.errors import AlreadyExists, InvalidResource
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Store, find

SECRET = "console-session-key"  # noqa: S105 - the name of a GlobalSecret
_KEY_BYTES, _NONCE_BYTES = 32, 12


def sealed(key: bytes, content: bytes, purpose: bytes) -> bytes:
    """Seals content. Nothing opens it that does not say the same purpose."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, purpose)


def opened(key: bytes, found: bytes, purpose: bytes) -> bytes | None:
    """Opens what was sealed for a purpose; None if it was not."""
    with suppress(ValueError, InvalidTag):
        return AESGCM(key).decrypt(found[:_NONCE_BYTES], found[_NONCE_BYTES:], purpose)
    return None


class SharedKey:
    """The key: a GlobalSecret, read each time, so that who deletes it ends at once what was sealed with it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self) -> bytes | None:
        """Returns the key; None if there is none."""
        found = await find(self._store, kinds.GLOBAL_SECRET.key(SECRET))
        key = found.spec.data if found is not None else b""
        return key if len(key) == _KEY_BYTES else None

    async def get(self) -> bytes:
        """Returns the key, a new one if there is none.

        Raises:
            InvalidResource: somebody has stored something else in its place.
        """
        key = await self.find()
        if key is not None:
            return key
        made = Resource(kinds.GLOBAL_SECRET.key(SECRET), SecretSpec(data=secrets.token_bytes(_KEY_BYTES)))
        with suppress(AlreadyExists):  # another control plane was faster
            await self._store.transact([Create(made)])
        key = await self.find()
        if key is None:
            raise InvalidResource.of(SECRET, f"GlobalSecret {SECRET} has to hold {_KEY_BYTES} bytes; delete it")
        return key
