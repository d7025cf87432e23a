"""Applies the operations of one transaction to the rows of the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby, islice

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
    ExpectAll,
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
# Made once: to make a statement takes as long as to have it done.
_INSERT = sa.insert(_resources)
_UPDATE = sa.update(_resources).where(
    _resources.c.kind == sa.bindparam("k"),
    _resources.c.mesh == sa.bindparam("m"),
    _resources.c.name == sa.bindparam("n"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Request of one caller, and the context in which it is recorded."""

    operations: Sequence[Operation]
    context: Context

    @property
    def removes_nothing(self) -> bool:
        """Tells whether each of its operations changes one resource at most."""
        return not any(isinstance(operation, Delete) for operation in self.operations)


class Transaction:
    """One transaction: does operations and remembers what they changed."""

    def __init__(self, connection: AsyncConnection, now: datetime, sealer: Sealer, kept: int) -> None:
        self._connection = connection
        self._now = now
        self._sealer = sealer
        self._kept_revisions = kept
        self.changed: list[Put | Removed] = []

    async def do_all(self, operations: Iterable[Operation]) -> None:
        """Do operations in their order; those of one kind that follow each other go to the database together."""
        for kind, group in groupby(operations, key=type):
            some = list(group)
            if kind is Update:
                await self._update([operation.resource for operation in some if isinstance(operation, Update)])
            elif kind is Create:
                await self._create([operation for operation in some if isinstance(operation, Create)])
            elif kind is Expect:
                await self._expect([operation for operation in some if isinstance(operation, Expect)])
            else:
                for operation in some:
                    if isinstance(operation, Delete):
                        await self._delete(operation)
                    elif isinstance(operation, ExpectAll):
                        await self._expect_all(operation)

    async def finish(self) -> Commit | None:
        """Enter the changes in the log of changes; None if there are none."""
        if not self.changed:
            return None
        keys = [change.resource.key if isinstance(change, Put) else change.key for change in self.changed]
        return Commit(await change_log.append(self._connection, keys, self._kept_revisions), tuple(self.changed))

    async def _create(self, operations: Sequence[Create]) -> None:
        keys = [key for one in operations for key in (one.resource.key, one.owner) if key is not None]
        there = set(await rows_of(self._connection, tuple(dict.fromkeys(keys)), _resources.c.version))
        rows = []
        for operation in operations:
            key, owner = operation.resource.key, operation.owner
            if owner is not None and owner not in there:
                raise NotFound(f"{owner} not found, to which {key} is to belong")
            if key in there:
                raise AlreadyExists(f"{key} already exists")
            there.add(key)
            now = self._now
            resource = replace(operation.resource, version=1, creation_time=now, modification_time=now)
            owned = (owner.kind, owner.mesh, owner.name) if owner else (None, None, None)
            columns = dict(zip(("owner_kind", "owner_mesh", "owner_name"), owned, strict=True))
            rows.append({**encode(resource, self._sealer), **columns})
            self._note(resource)
        try:
            await self._connection.execute(_INSERT, rows)
        except IntegrityError:  # another process was faster, where writers do not wait for each other
            raise AlreadyExists(f"{operations[0].resource.key} already exists, or another of those with it") from None

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
        rows = []
        for resource in updated.values():
            row = encode(resource, self._sealer)
            rows.append({**row, "k": row.pop("kind"), "m": row.pop("mesh"), "n": row.pop("name")})
            self._note(resource)
        await self._connection.execute(_UPDATE, rows)

    def _note(self, resource: AnyResource) -> None:
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

    async def _expect(self, operations: Sequence[Expect]) -> None:
        stored = await rows_of(self._connection, [one.key for one in operations], _resources.c.version)
        for operation in operations:
            found = stored.get(operation.key)
            if (found["version"] if found else 0) != operation.version:
                raise Conflict(f"{operation.key} has been changed by somebody else")

    async def _expect_all(self, operation: ExpectAll) -> None:
        columns = _resources.c
        query = sa.select(columns.name, columns.version, columns.creation_time).where(
            columns.kind == operation.kind, columns.mesh == operation.mesh
        )
        rows = await self._connection.execute(query)
        stored = {name: (version, datetime.fromisoformat(created)) for name, version, created in rows}
        if stored != operation.expected:
            raise Conflict(f"what there is of {operation.kind} in mesh {operation.mesh} has been changed meanwhile")

    async def _version(self, key: Key) -> int:
        found = await self._connection.execute(sa.select(_resources.c.version).where(is_at(key)))
        return found.scalar_one_or_none() or 0


def shared_out(asked: Sequence[Asked], done: Transaction) -> Iterator[tuple[Asked, tuple[Put | Removed, ...]]]:
    """Yields what was done for each of those that remove nothing."""
    changes = iter(done.changed)
    for one in asked:
        count = sum(isinstance(operation, Create | Update) for operation in one.operations)
        yield one, tuple(islice(changes, count))
