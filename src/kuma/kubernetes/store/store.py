"""A store over the Kubernetes API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import structlog

from kuma.base import aio
from kuma.base.errors import AlreadyExists, Conflict, InvalidResource, KumaError, NotFound, StoreCorrupt, Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object
from kuma.kubernetes.objects import content
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.store.feed import Batch, Feed
from kuma.kubernetes.store.journal import Journal, is_note
from kuma.kubernetes.store.objects import Objects
from kuma.kubernetes.store.plan import Planner, Write
from kuma.kubernetes.store.writer import Writer, Written
from kuma.resources import kinds
from kuma.resources.resource import Key
from kuma.store.protocol import AnyResource, Commit, Listing, Operation, Page, Put, Removed

log = structlog.get_logger(__name__)
T = TypeVar("T")

KEPT_CHANGES = 10_000
"""Changes that a reader may fall behind before it is given a new listing."""
ABANDONED_AFTER = timedelta(seconds=30)
"""After which a transaction of several objects that is still under way has been left by a process that died."""
_LONGEST = 20.0
"""Seconds that a transaction may take: it has to be over before others take it to be abandoned."""
_ALONE = frozenset(kind.name for kind in (kinds.DATAPLANE, kinds.DATAPLANE_INSIGHT, kinds.OBSERVED_TRAFFIC))
"""Kinds of which each resource is true by itself: a crash may leave some of them written and others not."""
_AT_ONCE = 20
"""Writes at the same time, of kinds that are true by themselves."""
_RETRY = aio.Backoff(first=0.5, last=10.0)
_WATCHED = tuple(kind.name for kind in kinds.IN_EFFECT)
_REFUSED = (AlreadyExists, Conflict, InvalidResource, NotFound)
"""What the answer to a write may be that others have made impossible."""


class KubernetesStore:
    """See `Store`. Versions are those of the API server (`resourceVersion`), which grow (KEP-5504); so are times."""

    def __init__(
        self,
        client: ApiClient,
        forms: Forms,
        *,
        kept: int = KEPT_CHANGES,
        abandoned_after: timedelta = ABANDONED_AFTER,
    ) -> None:
        self._client = client
        self._forms = forms
        self._objects = Objects(client, forms)
        self._journal = Journal(self._objects)
        self._kept = kept
        self._abandoned_after = abandoned_after.total_seconds()
        self._lock = asyncio.Lock()
        """Held by a transaction of several objects, and by a listing."""
        self._feeds: set[Feed] = set()
        self._recorders: list[Callable[[Commit], None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unlisted = ""
        self._own: set[str] = set()
        """The notes of transactions of this process."""
        self._unfinished: set[str] = set()

    async def open(self) -> None:
        """Finish what a process that died has left half done.

        Raises:
            Unavailable: the API server does not answer, or does not let us.
        """
        try:
            left = await self._journal.names()
            if left:
                log.warning("transactions are under way, or have been left half done: waiting for them", names=left)
                await asyncio.sleep(self._abandoned_after)
        except ApiError as error:
            raise Unavailable(f"the Kubernetes API refuses access to the store: {error}") from None
        for name in left:
            if not await self._is_finished(name):
                self._finish_later(name)

    def on_commit(self, record: Callable[[Commit], None]) -> None:
        """Call `record` with every commit of this process."""
        self._recorders.append(record)

    @property
    def problem(self) -> str:
        """Why the API server cannot be followed now; nothing if it can."""
        away = next((f"{path}: {why}" for feed in self._feeds for path, why in feed.away.items()), "")
        why = self._unlisted or away
        return f"the Kubernetes API cannot be followed ({why})" if why else ""

    async def close(self) -> None:
        """Finish what is being written."""
        finishing = [task for task in self._tasks if task.get_name() != _FINISHING]
        if finishing:
            await asyncio.wait(finishing)
        await aio.stop(self._tasks)

    async def get(self, key: Key) -> AnyResource:
        """See `Store.get`."""
        return await _told(self._objects.get(key))

    async def list(
        self, kind: str, mesh: str | None = None, *, name_contains: str = "", offset: int = 0, limit: int | None = None
    ) -> Page:
        """See `Store.list`."""
        found = [
            resource
            for resource in await _told(self._objects.all(kind))
            if mesh in (None, resource.mesh) and name_contains in resource.name
        ]
        found.sort(key=lambda resource: (resource.mesh, resource.name))
        return Page(tuple(found[offset : None if limit is None else offset + limit]), len(found))

    async def transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        """See `Store.transact`. Once begun it runs to its end, even if the caller is cancelled meanwhile."""
        task = aio.spawn(_told(self._transact(operations)), name="store transaction")
        self._keep(task)
        return await asyncio.shield(task)

    async def _transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        writes = await Planner(self._objects, self._forms).plan(operations)
        if len(writes) == 1:
            return self._committed(writes, [await Writer(self._objects).do(writes[0])])
        if not writes:
            return ()
        async with self._lock:
            alone = all(write.key.kind in _ALONE for write in writes)
            try:
                return self._committed(writes, await (self._do_each(writes) if alone else self._do_noted(writes)))
            except TimeoutError:
                raise Unavailable("the Kubernetes API is too slow: the change is completed, or undone, later") from None

    async def _do_noted(self, writes: Sequence[Write]) -> Sequence[Written]:
        """Does all writes, or none. If it cannot be known how far they have come, they are seen to later."""
        name = self._journal.name()
        self._own.add(name)
        try:
            async with asyncio.timeout(_LONGEST):
                done = await self._do_or_undo(name, writes)
        except _REFUSED:
            raise  # and all of it is undone
        except BaseException:
            self._finish_later(name)
            raise
        if not await self._is_closed(name):
            self._keep(aio.spawn(self._close_later(name), name=_FINISHING))
        return done

    async def _do_or_undo(self, name: str, writes: Sequence[Write]) -> Sequence[Written]:
        await self._journal.open(name, writes)
        writer = Writer(self._objects, name)
        done: list[Written] = []
        try:
            for write in writes:
                done.append(await writer.do(write))
        except _REFUSED:
            for write in reversed(writes[: len(done)]):
                await writer.undo(write)
            await self._journal.close(name)
            raise
        return done

    async def _do_each(self, writes: Sequence[Write]) -> Sequence[Written]:
        writer, turn = Writer(self._objects), asyncio.Semaphore(_AT_ONCE)

        async def do(write: Write) -> Written:
            async with turn:
                return await writer.do(write)

        found = await asyncio.gather(*map(do, writes), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [one for one in found if not isinstance(one, BaseException)]

    def _committed(self, writes: Sequence[Write], done: Sequence[Written]) -> tuple[AnyResource, ...]:
        """Tells of a transaction that is done; returns what it has stored."""
        pairs = list(zip(writes, done, strict=True))
        resources = {write.key: self._decoded(write.key, written.found) for write, written in pairs}
        if len(writes) > 1:
            told = {write.key for write, written in pairs if written.told and write.key.kind in _WATCHED}
            expected = {key: found.version if found else None for key, found in resources.items() if key in told}
            for feed in self._feeds if expected else ():
                feed.expect(Batch(expected))
        created = {write.key for write in writes if write.verb == "create"}
        changes = tuple(Put(r, key in created) if r is not None else Removed(key) for key, r in resources.items())
        newest = max((r.version for r in resources.values() if r is not None), default=0)
        for record in self._recorders:
            record(Commit(newest, changes))
        return tuple(resource for resource in resources.values() if resource is not None)

    def _decoded(self, key: Key, found: Object | None) -> AnyResource | None:
        if found is None:
            return None
        resource = content.decode(self._forms.of(key.kind), found)
        if resource is None:
            raise StoreCorrupt(f"{key} was stored as something else")
        return resource

    async def watch(self, since: int | None = None) -> AsyncIterator[Listing | Commit]:
        """See `Store.watch`. What is stored only, and has no effect, is not told of."""
        async with Feed(
            self._objects, _WATCHED, self._kept, self._lock, self._seen, patience=self._abandoned_after
        ) as feed:
            self._feeds.add(feed)
            try:
                if since is None:
                    yield await self._listing(feed)
                else:
                    await _told(feed.resume(since))
                while True:
                    commit = await feed.next()
                    yield commit if commit is not None else await self._listing(feed)
            finally:
                self._feeds.discard(feed)

    async def _listing(self, feed: Feed) -> Listing:
        """Lists everything, as soon as the API server answers."""
        failures = 0
        while True:
            try:
                async with self._lock:
                    listing = await feed.listing()
                self._unlisted = ""
                return listing
            except (Unavailable, ApiError) as error:
                failures += 1
                self._unlisted = str(error)
                log.error("the store cannot be listed", reason=str(error))
                await asyncio.sleep(_RETRY.delay(failures))

    def _seen(self, found: Object, gone: bool) -> None:
        """Sees to a transaction of another process, in case that process dies."""
        name = found["metadata"]["name"]
        if gone:
            self._own.discard(name)
        elif is_note(found) and name not in self._own:
            self._finish_later(name)

    def _finish_later(self, name: str) -> None:
        self._keep(aio.spawn(self._finish(name), name=_FINISHING))

    async def _finish(self, name: str) -> None:
        failures = 0
        await asyncio.sleep(self._abandoned_after)
        while not await self._is_finished(name):
            failures += 1
            await asyncio.sleep(_RETRY.delay(failures))

    async def _is_finished(self, name: str) -> bool:
        """Completes or undoes a transaction that was left; tells whether that could be done, whatever kept it."""
        try:
            await self._journal.finish(name)
        except Exception as error:
            self._unfinished.add(name)
            log.error("a transaction that was left half done stays so", transaction=name, reason=_reason(error))
            return False
        else:
            self._unfinished.discard(name)
            return True
        finally:
            self._client.metrics.unfinished.set(len(self._unfinished))

    async def _close_later(self, name: str) -> None:
        failures = 1
        while not await self._is_closed(name):
            await asyncio.sleep(_RETRY.delay(failures))
            failures += 1

    async def _is_closed(self, name: str) -> bool:
        """Forgets a transaction that is done; tells whether the API server has let us."""
        try:
            await self._journal.close(name)
        except (ApiError, Unavailable) as error:
            log.error("the note of a transaction that is done is still there", transaction=name, reason=str(error))
            return False
        return True

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even if the caller has gone away


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, KumaError | ApiError) else f"{type(error).__name__}: {error}"


_FINISHING = "finishing of a transaction"


async def _told(doing: Coroutine[Any, Any, T]) -> T:
    """Does something, and tells an answer of the API server that nobody has expected as `Unavailable`."""
    try:
        return await doing
    except ApiError as error:
        log.error("the Kubernetes API refuses the control plane", code=error.code, reason=str(error))
        raise Unavailable(f"the Kubernetes API refuses the control plane: {error}") from None
