"""The log of changes, from which a watch is resumed: at each revision, which resources have changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from kuma.resources.resource import Key
from kuma.store.protocol import RevisionTooOld
from kuma.store.sql import schema

KEPT_REVISIONS = 10_000
"""Revisions that a watch can resume from, and that a watcher may fall behind before it is given a new listing."""
_TRIM_EVERY = 100

_changes, _meta = schema.changes, schema.meta
# Made once: to make a statement takes as long as to have it done.
_REVISION = sa.select(_meta.c.value).where(_meta.c.name == "revision")
_NEXT = sa.update(_meta).where(_meta.c.name == "revision").values(value=sa.bindparam("following"))
_INSERT = sa.insert(_changes)


async def revision(connection: AsyncConnection) -> int:
    """Returns the revision of the last commit."""
    value = (await connection.execute(_REVISION)).scalar_one()
    return int(value)


async def lock(connection: AsyncConnection) -> bytes:
    """Wait until nobody else is in a transaction that writes. What is read from now on is what they have left.

    Returns the seal of the store.
    """
    rows = sa.select(_meta.c.name, _meta.c.value).where(_meta.c.name.in_(("revision", "seal"))).order_by(_meta.c.name)
    found = {row.name: row.value for row in await connection.execute(rows.with_for_update())}
    return bytes(found["seal"])


async def append(connection: AsyncConnection, changed: Sequence[Key], kept: int) -> int:
    """Write down the next revision, which is returned. All but the last `kept` are forgotten from time to time."""
    following = await revision(connection) + 1
    rows = [
        {"revision": following, "position": i, "kind": key.kind, "mesh": key.mesh, "name": key.name}
        for i, key in enumerate(changed)
    ]
    await connection.execute(_INSERT, rows)
    await connection.execute(_NEXT, {"following": str(following).encode()})
    if following % _TRIM_EVERY == 0:
        await connection.execute(sa.delete(_changes).where(_changes.c.revision <= following - kept))
    return following


async def after(connection: AsyncConnection, since: int) -> Sequence[tuple[int, Sequence[Key]]]:
    """Returns the later revisions in their order, each with the resources that it has changed.

    Raises:
        RevisionTooOld: they are not all known any more.
    """
    last = await revision(connection)
    oldest = (await connection.execute(sa.select(sa.func.min(_changes.c.revision)))).scalar_one()
    if since > last or (since < last and (oldest is None or since < oldest - 1)):
        raise RevisionTooOld(f"the changes after revision {since} are not known any more")
    query = sa.select(_changes).where(_changes.c.revision > since)
    rows = (await connection.execute(query.order_by(_changes.c.revision, _changes.c.position))).all()
    return [
        (number, [Key(row.kind, row.mesh, row.name) for row in group])
        for number, group in groupby(rows, key=lambda row: row.revision)
    ]
