"""A store over a SQL database, whatever its dialect."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import AlreadyExists, Conflict, InvalidResource, NotFound, StoreCorrupt, Unavailable
from kuma.resources import codec, kinds
from kuma.resources.resource import Key, Resource
from kuma.store import schema
from kuma.store.encryption import AesGcmSealer, KeyFile, Sealer, new_key
from kuma.store.protocol import (
    AnyResource,
    Commit,
    Create,
    Delete,
    Expect,
    Listing,
    Operation,
    Page,
    Put,
    Removed,
    RevisionTooOld,
    StillOwns,
    Update,
)

KEPT_REVISIONS = 10_000
"""How far back a watch can resume."""
BUFFERED_COMMITS = 10_000
"""How far a watcher may fall behind before it is given a new listing instead."""
_TRIM_EVERY = 100
_KEYS_PER_QUERY = 200
WRITES = "kuma_writes"
"""Execution option of connections that write: a dialect may have to begin their transactions in another way."""

SEAL, SEALED = Key("", "", "seal"), b"kuma"
"""What is kept sealed to know the key-encryption key again."""

_resources, _changes, _meta = schema.resources, schema.changes, schema.meta


class SqlStore:
    """See `Store`. All writes of a process go through one lock; watchers are fed by the commits of this process."""

    def __init__(
        self, engine: AsyncEngine, clock: Clock, sealer: Sealer, keys: KeyFile, scrub: Callable[[], Awaitable[None]]
    ) -> None:
        self._engine = engine
        self._scrub = scrub
        self._writer = engine.execution_options(**{WRITES: True})
        self._clock = clock
        self._sealer = sealer
        self._keys = keys
        self._lock = asyncio.Lock()
        self._watchers: set[_Watcher] = set()
        self._recorders: list[Callable[[Commit], None]] = []
        self._writing: set[asyncio.Task[Any]] = set()
        self._closing = AsyncExitStack()

    def close_with(self, release: Callable[[], object]) -> None:
        """Call `release` when the store is closed."""
        self._closing.callback(release)

    def on_commit(self, record: Callable[[Commit], None]) -> None:
        """Call `record` with every commit at once, on behalf of whoever has made it, before anybody is told of it.

        Only the end of the process between the commit and the call can keep it from being made.
        """
        self._recorders.append(record)

    async def close(self) -> None:
        """Finish what is being written, then release the database."""
        if self._writing:
            await asyncio.wait(self._writing)
        await self._engine.dispose()
        await self._closing.aclose()

    async def get(self, key: Key) -> AnyResource:
        """See `Store.get`."""
        with _reached():
            async with self._engine.connect() as connection:
                row = (await connection.execute(sa.select(_resources).where(_is(key)))).mappings().first()
        if row is None:
            raise NotFound(f"{key} not found")
        return self._resource(row)

    async def list(
        self, kind: str, mesh: str | None = None, *, name_contains: str = "", offset: int = 0, limit: int | None = None
    ) -> Page:
        """See `Store.list`."""
        conditions = [_resources.c.kind == kind]
        if mesh is not None:
            conditions.append(_resources.c.mesh == mesh)
        if name_contains:
            conditions.append(_resources.c.name.contains(name_contains, autoescape=True))
        query = sa.select(_resources).where(*conditions).order_by(_resources.c.mesh, _resources.c.name)
        count = sa.select(sa.func.count()).select_from(_resources).where(*conditions)
        with _reached():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query.offset(offset).limit(limit))).mappings().all()
                total = (await connection.execute(count)).scalar_one()
        return Page(tuple(self._resource(row) for row in rows), total)

    async def transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        """See `Store.transact`. Once begun it runs to its end, even if the caller is cancelled meanwhile."""
        task = aio.spawn(self._transact(operations), name="store transaction")
        self._writing.add(task)
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    async def rekey(self) -> None:
        """Seal everything anew, under a new key-encryption key. Others go on reading meanwhile; writers wait.

        At every moment the key file holds what the rows are sealed with, so that a crash loses nothing: what it
        leaves half done, `finish_rekey` completes. Afterwards no file holds anything that the old key opens.

        Raises:
            Misconfigured: the key file cannot be written.
            StoreCorrupt: a row cannot be opened; nothing was changed.
        """
        await self._to_its_end(self._rekey(), "sealing anew")

    async def finish_rekey(self) -> bool:
        """Complete what a crash has left half done, and drop the old key; False if there was nothing to complete."""
        if len(self._keys.load(may_create=False)) == 1:
            return False
        await self._to_its_end(self._seal_all(), "sealing anew, again")
        return True

    async def _to_its_end(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = aio.spawn(coroutine, name=name)
        self._writing.add(task)
        task.add_done_callback(self._written)
        await asyncio.shield(task)

    async def _rekey(self) -> None:
        self._keys.save([new_key(), *self._keys.load(may_create=False)])
        await self._seal_all()

    async def _seal_all(self) -> None:
        """Seal everything with the first key of the file, and drop the others."""
        async with self._lock:
            keys = self._keys.load(may_create=False)
            self._sealer = AesGcmSealer(keys)
            async with self._writer.begin() as connection:
                await self._seal_anew(connection)
            await self._scrub()
            self._keys.save(keys[:1])  # in memory the old ones stay: a reader may hold a row from before

    async def _seal_anew(self, connection: AsyncConnection) -> None:
        columns = _resources.c
        sealed = [kind.name for kind in kinds.ALL if kind.sealed]
        query = sa.select(columns.kind, columns.mesh, columns.name, columns.spec).where(columns.kind.in_(sealed))
        for row in (await connection.execute(query)).all():
            key = Key(row.kind, row.mesh, row.name)
            spec = self._sealer.seal(key, self._sealer.open(key, row.spec))
            await connection.execute(sa.update(_resources).where(_is(key)).values(spec=spec))
        seal = self._sealer.seal(SEAL, SEALED)
        await connection.execute(sa.update(_meta).where(_meta.c.name == "seal").values(value=seal))

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even if the caller has gone away

    async def _transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        async with self._lock:
            with _reached():
                async with self._writer.begin() as connection:
                    transaction = _Transaction(connection, self._clock.now(), self._sealer)
                    await transaction.do_all(operations)
                    revision = await transaction.finish()
            if transaction.changed:
                commit = Commit(revision, tuple(transaction.changed))
                for watcher in self._watchers:
                    watcher.push(commit)
                for record in self._recorders:
                    record(commit)
        return tuple(transaction.stored)

    async def watch(self, since: int | None = None) -> AsyncIterator[Listing | Commit]:
        """See `Store.watch`."""
        watcher = _Watcher()
        try:
            async with self._lock:  # nothing is committed between what is read here and what is pushed from now on
                first: Sequence[Listing | Commit] = (
                    [await self._listing()] if since is None else await self._commits_after(since)
                )
                self._watchers.add(watcher)
            for event in first:
                yield event
            while True:
                if watcher.overflown:
                    async with self._lock:
                        watcher.start_over()
                        listing = await self._listing()
                    yield listing
                commit = await watcher.next()
                if commit is not None:
                    yield commit
        finally:
            self._watchers.discard(watcher)

    async def _listing(self) -> Listing:
        async with self._engine.connect() as connection:
            rows = (await connection.execute(sa.select(_resources))).mappings().all()
            return Listing(await _revision(connection), tuple(self._resource(row) for row in rows))

    async def _commits_after(self, since: int) -> Sequence[Commit]:
        async with self._engine.connect() as connection:
            revision = await _revision(connection)
            oldest = (await connection.execute(sa.select(sa.func.min(_changes.c.revision)))).scalar_one()
            if since > revision or (since < revision and (oldest is None or since < oldest - 1)):
                raise RevisionTooOld(f"the changes after revision {since} are not known any more")
            query = sa.select(_changes).where(_changes.c.revision > since)
            rows = (await connection.execute(query.order_by(_changes.c.revision, _changes.c.position))).all()
        found = []
        for number, group in groupby(rows, key=lambda row: row.revision):
            found.append(Commit(number, tuple([await self._change(Key(r.kind, r.mesh, r.name)) for r in group])))
        return found

    async def _change(self, key: Key) -> Put | Removed:
        try:
            return Put(await self.get(key))
        except NotFound:
            return Removed(key)

    def _resource(self, row: sa.RowMapping) -> AnyResource:
        return decode(row, self._sealer)


@contextmanager
def _reached() -> Iterator[None]:
    """A database that is locked, full or gone is no fault of the request: it may be tried again."""
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"the store cannot be used: {error.orig}") from None


class _Transaction:
    """One transaction: does operations and remembers what they changed."""

    def __init__(self, connection: AsyncConnection, now: datetime, sealer: Sealer) -> None:
        self._connection = connection
        self._now = now
        self._sealer = sealer
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

    async def finish(self) -> int:
        """Write down the changes under the next revision, which is returned."""
        revision = await _revision(self._connection) + 1
        if not self.changed:
            return revision
        keys = [c.resource.key if isinstance(c, Put) else c.key for c in self.changed]
        rows = [
            {"revision": revision, "position": i, "kind": k.kind, "mesh": k.mesh, "name": k.name}
            for i, k in enumerate(keys)
        ]
        await self._connection.execute(sa.insert(_changes), rows)
        value = str(revision).encode()
        await self._connection.execute(sa.update(_meta).where(_meta.c.name == "revision").values(value=value))
        if revision % _TRIM_EVERY == 0:
            await self._connection.execute(sa.delete(_changes).where(_changes.c.revision <= revision - KEPT_REVISIONS))
        return revision

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
        stored = await self._locked([old.key for old in olds])
        updated: dict[Key, AnyResource] = {}
        for old in olds:
            found = stored.get(old.key)
            if found is None or found.version != old.version or old.key in updated:
                raise Conflict(f"{old.key} has been changed by somebody else")
            created = datetime.fromisoformat(found.creation_time)
            updated[old.key] = replace(old, version=old.version + 1, creation_time=created, modification_time=self._now)
        columns = _resources.c
        statement = sa.update(_resources).where(
            columns.kind == sa.bindparam("k"), columns.mesh == sa.bindparam("m"), columns.name == sa.bindparam("n")
        )
        rows = []
        for resource in updated.values():
            row = encode(resource, self._sealer)
            rows.append({**row, "k": row.pop("kind"), "m": row.pop("mesh"), "n": row.pop("name")})
            self._note(resource)
        await self._connection.execute(statement, rows)

    async def _locked(self, keys: Sequence[Key]) -> dict[Key, Any]:
        """Version and time of creation of the resources that exist, which nobody else can change until the end."""
        columns = _resources.c
        found: dict[Key, Any] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            wanted = [(key.kind, key.mesh, key.name) for key in keys[start : start + _KEYS_PER_QUERY]]
            query = sa.select(columns.kind, columns.mesh, columns.name, columns.version, columns.creation_time)
            named = sa.tuple_(columns.kind, columns.mesh, columns.name).in_(wanted)
            for row in await self._connection.execute(query.where(named).with_for_update()):
                found[Key(row.kind, row.mesh, row.name)] = row
        return found

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
        await self._connection.execute(sa.delete(_resources).where(_is(key)))
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
        found = await self._connection.execute(sa.select(_resources.c.version).where(_is(key)))
        return found.scalar_one_or_none() or 0


class _Watcher:
    """Commits on their way to one watcher."""

    def __init__(self) -> None:
        self._commits: deque[Commit] = deque()
        self._pushed = asyncio.Event()
        self.overflown = False

    def push(self, commit: Commit) -> None:
        if len(self._commits) >= BUFFERED_COMMITS:
            self.overflown = True
            self._commits.clear()
        if not self.overflown:
            self._commits.append(commit)
        self._pushed.set()

    def start_over(self) -> None:
        self._commits.clear()
        self.overflown = False

    async def next(self) -> Commit | None:
        """The next commit; None if some were lost."""
        while not self._commits and not self.overflown:
            self._pushed.clear()
            await self._pushed.wait()
        return None if self.overflown else self._commits.popleft()


def encode(resource: AnyResource, sealer: Sealer) -> dict[str, Any]:
    """A resource as a row."""
    key = resource.key
    spec = json.dumps(resource.spec.to_wire(), separators=(",", ":")).encode()
    return {
        "kind": key.kind,
        "mesh": key.mesh,
        "name": key.name,
        "spec": sealer.seal(key, spec) if kinds.by_name(key.kind).sealed else spec,
        "labels": json.dumps(dict(resource.labels)),
        "version": resource.version,
        "creation_time": codec.rfc3339(resource.creation_time),
        "modification_time": codec.rfc3339(resource.modification_time),
    }


def decode(row: sa.RowMapping, sealer: Sealer) -> AnyResource:
    """The resource in a row.

    Raises:
        StoreCorrupt: it cannot be opened or understood.
    """
    key = Key(row["kind"], row["mesh"], row["name"])
    try:
        kind = kinds.by_name(key.kind)
        spec = sealer.open(key, row["spec"]) if kind.sealed else row["spec"]
        return Resource(
            key,
            kind.spec.model_validate_json(spec),
            labels=json.loads(row["labels"]),
            creation_time=datetime.fromisoformat(row["creation_time"]),
            modification_time=datetime.fromisoformat(row["modification_time"]),
            version=row["version"],
        )
    except (ValueError, TypeError, InvalidResource):  # whose text may hold what is to stay secret
        raise StoreCorrupt(f"{key} is stored in a form that this version does not understand") from None


async def _revision(connection: AsyncConnection) -> int:
    value = (await connection.execute(sa.select(_meta.c.value).where(_meta.c.name == "revision"))).scalar_one()
    return int(value)


def _is(key: Key) -> sa.ColumnElement[bool]:
    columns = _resources.c
    return sa.and_(columns.kind == key.kind, columns.mesh == key.mesh, columns.name == key.name)
