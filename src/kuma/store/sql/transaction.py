"""Applies the operations of one transaction to the rows of the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from kuma.base.errors import AlreadyExists, Conflict, NotFound
from kuma.resources.resource import Key
from kuma.store.protocol import (
    AnyResource,
    Commit,
    Create,
    Delete,
    Expect,
    Operation,
    Put,
    Removed,
    StillOwns,
    Update,
)
from kuma.store.sealing.encryption import Sealer
from kuma.store.sql import change_log, schema
from kuma.store.sql.rows import encode, is_at, rows_of

_resources = schema.resources


class Transaction:
    """One transaction: does operations and remembers what they changed."""

    def __init__(self, connection: AsyncConnection, now: datetime, sealer: Sealer, kept: int) -> None:
        self._connection = connection
        self._now = now
        self._sealer = sealer
        self._kept_revisions = kept
        self.stored: list[AnyResource] = []
        self.changed: list[Put | Removed] = []

    async def do_all(self, operations: Iterable[Operation]) -> None:
        """Do operations in their order; updates that follow each other go to the database together."""
        for is_update, group in groupby(operations, key=lambda operation: isinstance(operation, Update)):
            if is_update:
                await self._update([operation.resource for operation in group if isinstance(operation, Update)])
            else:
                for operation in group:
                    await self._do(operation)

    async def _do(self, operation: Operation) -> None:
        if isinstance(operation, Create):
            await self._create(operation)
        elif isinstance(operation, Delete):
            await self._delete(operation)
        elif isinstance(operation, Expect):
            await self._expect(operation)

    async def finish(self) -> Commit | None:
        """Enter the changes in the log of changes; None if there are none."""
        if not self.changed:
            return None
        keys = [change.resource.key if isinstance(change, Put) else change.key for change in self.changed]
        return Commit(await change_log.append(self._connection, keys, self._kept_revisions), tuple(self.changed))

    async def _create(self, operation: Create) -> None:
        resource = replace(operation.resource, version=1, creation_time=self._now, modification_time=self._now)
        owner = operation.owner
        if owner is not None and await self._version(owner) == 0:
            raise NotFound(f"{owner} not found, to which {resource.key} is to belong")
        columns = {"owner_kind": owner.kind, "owner_mesh": owner.mesh, "owner_name": owner.name} if owner else {}
        try:
            await self._connection.execute(sa.insert(_resources).values(**encode(resource, self._sealer), **columns))
        except IntegrityError:
            raise AlreadyExists(f"{resource.key} already exists") from None
        self._note(resource)

    async def _update(self, olds: Sequence[AnyResource]) -> None:
        columns, keys = _resources.c, [old.key for old in olds]
        stored = await rows_of(self._connection, keys, columns.version, columns.creation_time)
        updated: dict[Key, AnyResource] = {}
        for old in olds:
            found = stored.get(old.key)
            if found is None or found["version"] != old.version or old.key in updated:
                raise Conflict(f"{old.key} has been changed by somebody else")
            created = datetime.fromisoformat(found["creation_time"])
            updated[old.key] = replace(old, version=old.version + 1, creation_time=created, modification_time=self._now)
        statement = sa.update(_resources).where(
            columns.kind == sa.bindparam("k"), columns.mesh == sa.bindparam("m"), columns.name == sa.bindparam("n")
        )
        rows = []
        for resource in updated.values():
            row = encode(resource, self._sealer)
            rows.append({**row, "k": row.pop("kind"), "m": row.pop("mesh"), "n": row.pop("name")})
            self._note(resource)
        await self._connection.execute(statement, rows)

    def _note(self, resource: AnyResource) -> None:
        self.stored.append(resource)
        self.changed.append(Put(resource))

    async def _delete(self, operation: Delete) -> None:
        if await self._version(operation.key) == 0:
            raise NotFound(f"{operation.key} not found")
        for owned in await self._owned(operation.key):
            if owned.kind == operation.unless_owns:
                raise StillOwns(f"{operation.key} still owns {owned}")
        await self._delete_tree(operation.key)

    async def _delete_tree(self, key: Key) -> None:
        for owned in await self._owned(key):
            await self._delete_tree(owned)
        await self._connection.execute(sa.delete(_resources).where(is_at(key)))
        self.changed.append(Removed(key))

    async def _owned(self, owner: Key) -> Sequence[Key]:
        columns = _resources.c
        query = sa.select(columns.kind, columns.mesh, columns.name).where(
            columns.owner_kind == owner.kind, columns.owner_mesh == owner.mesh, columns.owner_name == owner.name
        )
        rows = await self._connection.execute(query.order_by(columns.kind, columns.name))
        return [Key(*row) for row in rows]

    async def _expect(self, operation: Expect) -> None:
        if await self._version(operation.key) != operation.version:
            raise Conflict(f"{operation.key} has been changed by somebody else")

    async def _version(self, key: Key) -> int:
        found = await self._connection.execute(sa.select(_resources.c.version).where(is_at(key)))
        return found.scalar_one_or_none() or 0
