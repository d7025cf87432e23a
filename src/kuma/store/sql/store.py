"""A store over a SQL database, whatever its dialect."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import groupby
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import KumaError, NotFound, StoreCorrupt, Unavailable
from kuma.base.turns import Turns
from kuma.resources import kinds
from kuma.resources.resource import Key
from kuma.store.protocol import AnyResource, Commit, Listing, Operation, Page, Put, Removed, RevisionTooOld
from kuma.store.sealing.encryption import AesGcmSealer, KeyFile, new_key
from kuma.store.sql import change_log, schema, seal
from kuma.store.sql.dialect import Dialect, reason
from kuma.store.sql.grouped import Grouped
from kuma.store.sql.keyring import Keyring, check_all_have
from kuma.store.sql.rows import Read, blank, rows_of
from kuma.store.sql.transaction import Asked, Transaction, shared_out
from kuma.store.sql.watcher import Watcher

T = TypeVar("T")
log = structlog.get_logger(__name__)

_RETRY = 1.0
"""Seconds."""
_ANSWER = 30.0
"""Seconds that it may take to read what others have committed; after a restore that is everything."""
_resources = schema.resources


class SqlStore:
    """See `Store`. Writes of a process go one after the other; those of other processes, `catch_up` brings."""

    def __init__(
        self,
        engine: AsyncEngine,
        dialect: Dialect,
        clock: Clock,
        sealer: AesGcmSealer,
        keys: KeyFile,
        *,
        revision: int,
        kept: int,
    ) -> None:
        """Watchers are told of what follows `revision`; `kept` of them are remembered."""
        self._engine = engine
        self._dialect = dialect
        self._reader = engine.execution_options(**dialect.traits.snapshot)
        self._clock = clock
        self.keyring = Keyring(keys, sealer)
        self._told = revision
        self._kept_revisions = kept
        self._lock = asyncio.Lock()
        self._turns = Turns()
        self._read = Read()
        self._watchers: set[Watcher] = set()
        self._recorders: list[Callable[[Commit], None]] = []
        self._on_gap: list[Callable[[], None]] = []
        self._writing: set[asyncio.Task[Any]] = set()
        self._gets = Grouped(self._get_all, "store reads")
        self._transactions = Grouped(self._transact_all, "store transactions")
        self._closing = AsyncExitStack()
        self.not_understood: set[Key] = set()
        """What is left out of all that watchers are told: control planes of a newer version have written it."""
        self.problem = ""
        """Why the database cannot be used now; empty if it can, as far as is known."""

    def close_with(self, release: Callable[[], object], *, first: Callable[[], Awaitable[None]]) -> None:
        """Call `first` before the database is closed, and `release` afterwards."""
        self._closing.callback(release)
        self._closing.push_async_callback(self._engine.dispose)
        self._closing.push_async_callback(first)

    def on_commit(self, record: Callable[[Commit], None]) -> None:
        """Call `record` with every commit at once, in its caller's context, before any watcher is told of it.

        Only the end of the process between the commit and the call can keep it from being made.
        """
        self._recorders.append(record)

    def on_gap(self, ask: Callable[[], None]) -> None:
        """Call `ask` when there is reason to look what others have committed, or whether the database is there."""
        self._on_gap.append(ask)

    async def close(self) -> None:
        """Finish what is being written, then release the database."""
        await self._transactions.finish()
        await self._gets.finish()
        if self._writing:
            await asyncio.wait(self._writing)
        await self._closing.aclose()

    async def get(self, key: Key) -> AnyResource:
        """See `Store.get`."""
        return await self._gets.ask(key)

    async def _get_all(self, keys: Sequence[Key]) -> Sequence[AnyResource | Exception]:
        async with self._reading(by_one_statement=True) as connection:
            rows = await rows_of(connection, tuple(dict.fromkeys(keys)))
        return [self._found(key, rows.get(key)) for key in keys]

    def _found(self, key: Key, row: sa.RowMapping | None) -> AnyResource | Exception:
        try:
            return NotFound(f"{key} not found") if row is None else self._readable(row) or self._resource(row)
        except StoreCorrupt as error:
            return error

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
        async with self._reading() as connection:
            rows = (await connection.execute(query.offset(offset).limit(limit))).mappings().all()
            total = (await connection.execute(count)).scalar_one()
        found = await self._turns.collect(map(self._readable, rows))
        readable = tuple(resource for resource in found if resource is not None)
        return Page(readable, total - (len(found) - len(readable)))

    async def transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        """See `Store.transact`. Once begun it runs to its end, even if the caller is cancelled meanwhile."""
        return await self._transactions.ask(Asked(operations, contextvars.copy_context()))

    async def _transact_all(self, asked: Sequence[Asked]) -> Sequence[tuple[AnyResource, ...] | Exception]:
        """Does what is asked, in its order. What removes nothing goes together, in one transaction of the database."""
        answers: list[tuple[AnyResource, ...] | Exception] = []
        async with self._lock:
            for together, group in groupby(asked, key=lambda one: one.removes_nothing):
                some = list(group)
                answers += await self._together(some) if together and len(some) > 1 else await self._each(some)
        return answers

    async def _together(self, asked: Sequence[Asked]) -> Sequence[tuple[AnyResource, ...] | Exception]:
        try:
            return await self._commit(asked)
        except Unavailable:
            raise
        except KumaError:  # one of them stands in the way of the others
            return await self._each(asked)

    async def _each(self, asked: Sequence[Asked]) -> Sequence[tuple[AnyResource, ...] | Exception]:
        answers: list[tuple[AnyResource, ...] | Exception] = []
        for one in asked:
            try:
                answers += await self._commit([one])
            except Exception as error:
                answers.append(error)
        return answers

    async def _commit(self, asked: Sequence[Asked]) -> Sequence[tuple[AnyResource, ...] | Exception]:
        """Does all that is asked or nothing."""
        async with self._write() as connection:
            transaction = Transaction(connection, self._clock.now(), self.keyring.sealer, self._kept_revisions)
            await transaction.do_all(operation for one in asked for operation in one.operations)
            commit = await transaction.finish()
            if commit is not None:
                await self._dialect.announce(connection, commit.revision)
        parts = [(asked[0], tuple(transaction.changed))] if len(asked) == 1 else list(shared_out(asked, transaction))
        if commit is not None:
            self._committed(commit, parts)
        return [tuple(change.resource for change in changes if isinstance(change, Put)) for _, changes in parts]

    def _committed(self, commit: Commit, parts: Sequence[tuple[Asked, tuple[Put | Removed, ...]]]) -> None:
        for one, changes in parts:
            for record in self._recorders:
                one.context.run(record, Commit(commit.revision, changes))
        if commit.revision == self._told + 1:
            self._tell(commit)
        elif self._on_gap:  # others have committed before: that is told first
            self._look()
        else:  # what was committed before has not been told: its outcome was unknown, or a recorder has raised
            self._start_over(commit.revision)

    def _tell(self, commit: Commit) -> None:
        self._told = commit.revision
        for watcher in self._watchers:
            watcher.push(commit)

    def _look(self) -> None:
        for ask in self._on_gap:
            ask()

    async def rekey(self) -> None:
        """Seal everything anew, under a new key-encryption key. Others go on reading meanwhile; writers wait.

        At every moment the key file holds what the rows are sealed with, so that a crash loses nothing: what it
        leaves half done, `finish_rekey` completes. Afterwards no file holds anything that the old key opens.

        Raises:
            Misconfigured: the key file cannot be written.
            StoreCorrupt: a row cannot be opened; nothing was changed.
            Unavailable: others use the store, and have not been given the next key; or it cannot be used now, and
                `finish_rekey` completes what is half done.
        """
        await self._to_its_end(self._rekey(), "sealing anew")

    async def finish_rekey(self) -> bool:
        """Complete what a crash has left half done, and drop the old key; False if there was nothing to complete."""
        if len(self.keyring.file.load()) == 1:
            return False
        await self._to_its_end(self._seal_all(), "sealing anew, again")
        return True

    async def _rekey(self) -> None:
        file = self.keyring.file
        following = file.following()
        async with self._reading() as connection:
            others = await self._dialect.others(connection)
        if others:
            check_all_have(following, (await self.list(kinds.INSTANCE.name)).items, others)
        file.save([following or new_key(), *file.load()])
        await self._seal_all()

    async def _seal_all(self) -> None:
        """Seal everything with the first key of the file, and drop the others."""
        async with self._lock:
            keys = self.keyring.file.load()
            anew = AesGcmSealer(keys)
            self.keyring.sealer = AesGcmSealer([*keys[1:], keys[0]])  # seals as before until all of it is committed
            async with self._write() as connection:
                await seal.seal_anew(connection, anew)
            self.keyring.sealer = anew
            await self._dialect.scrub()
            self.keyring.file.settle_on(keys[0])  # in memory the old ones stay: a reader may hold a row from before

    async def _to_its_end(self, coroutine: Coroutine[Any, Any, T], name: str) -> T:
        """Run something that writes, whatever becomes of the caller."""
        task = aio.spawn(coroutine, name=name)
        self._writing.add(task)
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even if the caller has gone away

    async def watch(self, since: int | None = None) -> AsyncIterator[Listing | Commit]:
        """See `Store.watch`."""
        watcher = Watcher(self._kept_revisions)
        self._watchers.add(watcher)  # from now on nothing is missed
        try:
            first: Sequence[Listing | Commit] = (
                [await self._listing()] if since is None else await self._commits_after(since)
            )
            for event in first:
                yield event
            seen = first[-1].revision if first else since or 0
            while True:
                commit = await watcher.next()
                if commit is None:
                    watcher.start_over()
                    listing = await self._listing_at_last()
                    seen = listing.revision
                    yield listing
                elif commit.revision > seen:
                    yield commit
        finally:
            self._watchers.discard(watcher)

    async def catch_up(self) -> None:
        """Tell watchers what others have committed; of several revisions at once, as they are in the end.

        Raises:
            Unavailable: the database cannot be used now.
            TimeoutError: it does not answer.
        """
        since = self._told
        async with asyncio.timeout(_ANSWER), self._reading() as connection:
            last = await change_log.revision(connection)
            if last == since:
                return
            try:
                revisions = await change_log.after(connection, since)
            except RevisionTooOld:
                self._start_over(last)
                return
            keys = tuple(dict.fromkeys(key for _, some in revisions for key in some))
            rows = await rows_of(connection, keys)
        changes = await self._turns.collect(self._change(key, rows.get(key)) for key in keys)
        if last > self._told:
            self._tell(Commit(last, tuple(change for change in changes if change is not None)))

    def _start_over(self, revision: int) -> None:
        """Gives every watcher a new listing: what has happened is not known any more."""
        self._told = revision
        for watcher in self._watchers:
            watcher.overflow()

    async def _listing_at_last(self) -> Listing:
        """Returns a listing, as soon as there can be one."""
        while True:
            try:
                return await self._listing()
            except Unavailable:  # which has been logged
                await self._clock.sleep(_RETRY)
            except StoreCorrupt as error:
                log.error("the store cannot be followed: it is tried again", reason=str(error))
                await self._clock.sleep(_RETRY)

    async def _listing(self) -> Listing:
        async with self._reading() as connection:
            rows = (await connection.execute(sa.select(_resources))).mappings().all()
            found = [self._if_understood(row) for row in rows]
            revision = await change_log.revision(connection)
        return Listing(revision, tuple(resource for resource in found if resource is not None))

    async def _commits_after(self, since: int) -> Sequence[Commit]:
        async with self._reading() as connection:
            revisions = await change_log.after(connection, since)
            rows = await rows_of(connection, tuple({key for _, keys in revisions for key in keys}))
        changes = [(number, [self._change(key, rows.get(key)) for key in keys]) for number, keys in revisions]
        return [Commit(number, tuple(each for each in some if each is not None)) for number, some in changes]

    def _change(self, key: Key, row: sa.RowMapping | None) -> Put | Removed | None:
        """Returns how a resource has changed; None if that is not understood, and what was known before still holds.

        What is said of proxies holds no more then. That a control plane is there, and who leads, is as it was heard
        last: nobody takes its place for that.
        """
        resource = self._if_understood(row) if row is not None else None
        if resource is not None:
            return Put(resource)
        if row is None:
            self.not_understood.discard(key)
        return None if row is not None and key.kind in (kinds.INSTANCE.name, kinds.LEASE.name) else Removed(key)

    def _readable(self, row: sa.RowMapping) -> AnyResource | None:
        """Returns the resource in a row, as far as it is understood: see `_if_understood` and `blank`."""
        return self._if_understood(row) or blank(row)

    def _if_understood(self, row: sa.RowMapping) -> AnyResource | None:
        """Returns the resource in a row; None if a newer control plane tells there what this one does not understand.

        Raises:
            StoreCorrupt: it is of a kind that others depend on.
        """
        key = Key(row["kind"], row["mesh"], row["name"])
        try:
            found = self._resource(row)
        except StoreCorrupt as error:
            if key.kind not in kinds.TOLD:
                raise
            if key not in self.not_understood:
                log.warning("what a control plane has told is not understood, and left out", reason=str(error))
            self.not_understood.add(key)
            return None
        self.not_understood.discard(key)
        return found

    def _resource(self, row: sa.RowMapping) -> AnyResource:
        return self._read.resource(row, self.keyring.sealer)

    @asynccontextmanager
    async def _reading(self, *, by_one_statement: bool = False) -> AsyncIterator[AsyncConnection]:
        """Opens a connection to which everything is as at one moment, which one statement always sees."""
        with self._translated_errors():
            async with self._reader.connect() as connection:
                if not by_one_statement:
                    await self._dialect.begin_reading(connection)
                yield connection

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        """Opens a transaction, beside which nobody else writes.

        Raises:
            StoreCorrupt: somebody else has sealed the store anew, and what this process wrote could not be opened.
        """
        with self._translated_errors():
            async with self._engine.begin() as connection:
                sealed = await self._dialect.begin(connection)
                if sealed is not None:
                    self.keyring.follow(sealed)
                yield connection

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translates errors of a database that is locked, full or gone; the reason is only logged."""
        try:
            yield
        except self._dialect.traits.unavailable as error:
            log.error("the store cannot be used", reason=reason(error))
            self._look()
            raise Unavailable("the store cannot be used now; the log of the control plane says why") from None
