"""Common base of everything that is sealed in a database: one key-encryption key, and how it is changed."""

from __future__ import annotations

import contextlib

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from kuma.base.errors import StoreCorrupt
from kuma.resources import kinds
from kuma.resources.resource import Key
from kuma.store.sealing.encryption import AesGcmSealer, Sealer
from kuma.store.sql import schema
from kuma.store.sql.rows import is_at

ANOTHER_KEY = (
    "the key-encryption key is not the one that this store's Secrets are sealed with. Put the right key file back, or "
    "point KUMA_STORE_ENCRYPTION_KEY_FILE at it"
)
SEAL, SEALED = Key("", "", "seal"), b"kuma"
"""What is kept sealed to know the key-encryption key again."""


def make(sealer: Sealer) -> bytes:
    """Returns the seal of a store, by which its key-encryption key is known again."""
    return sealer.seal(SEAL, SEALED)


def check(sealer: Sealer, seal: bytes) -> None:
    """See that a store with this seal can be opened.

    Raises:
        StoreCorrupt: its key-encryption key is another one.
    """
    try:
        sealer.open(SEAL, seal)
    except StoreCorrupt:
        raise StoreCorrupt(ANOTHER_KEY) from None


def led(sealer: AesGcmSealer, seal: bytes) -> AesGcmSealer:
    """Returns a sealer with the same keys that seals with the one that a store with this seal is sealed with.

    Raises:
        StoreCorrupt: it is none of them.
    """
    for key in sealer.keys:
        with contextlib.suppress(StoreCorrupt):
            check(AesGcmSealer([key]), seal)
            others = [other for other in sealer.keys if other != key]
            return sealer if key == sealer.keys[0] else AesGcmSealer([key, *others])
    raise StoreCorrupt(ANOTHER_KEY)


async def seal_anew(connection: AsyncConnection, sealer: Sealer) -> None:
    """Seal all that is sealed, and the seal itself, with the first of the sealer's keys.

    Raises:
        StoreCorrupt: a row cannot be opened.
    """
    resources, meta = schema.resources, schema.meta
    columns = resources.c
    sealed = [kind.name for kind in kinds.ALL if kind.sealed]
    query = sa.select(columns.kind, columns.mesh, columns.name, columns.spec).where(columns.kind.in_(sealed))
    for row in (await connection.execute(query)).all():
        key = Key(row.kind, row.mesh, row.name)
        spec = sealer.seal(key, sealer.open(key, row.spec))
        await connection.execute(sa.update(resources).where(is_at(key)).values(spec=spec))
    await connection.execute(sa.update(meta).where(meta.c.name == "seal").values(value=make(sealer)))
