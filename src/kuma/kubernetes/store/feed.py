"""One watch over all kinds, made of one for each: a listing at one instant, then commits.

A transaction of this process comes as one commit, whatever the order in which the watches of its kinds tell of it.
Changes by others come one object at a time, as they were made.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from kuma.base import aio
from kuma.base.errors import Unavailable
from kuma.kubernetes.api.client import ApiError, Object
from kuma.kubernetes.store.objects import Objects
from kuma.resources.resource import Key
from kuma.store.protocol import AnyResource, Commit, Listing, Put, Removed, RevisionTooOld

log = structlog.get_logger(__name__)

_COMMITS_OF_ONE_VERSION = 1_000_000
"""A revision is the version of the API that is surely known, and the number of the commit since; see `_revision`."""
_RETRY = aio.Backoff(first=0.2, last=10.0)


class _Changed(NamedTuple):
    key: Key
    version: int
    change: Put | Removed


class _Lost(NamedTuple):
    """A watch cannot go on: its past is forgotten."""

    reason: str


@dataclass(slots=True, eq=False)
class Batch:
    """A transaction of this process: the versions that it has written, by key in their order; None if deleted."""

    expected: Mapping[Key, int | None]
    arrived: dict[Key, Put | Removed] = field(default_factory=dict)

    def takes(self, changed: _Changed) -> bool:
        """Tells whether a change is one of the transaction's, and notes it."""
        if changed.key not in self.expected or changed.key in self.arrived:
            return False
        expected = self.expected[changed.key]
        if changed.version != expected if expected is not None else isinstance(changed.change, Put):
            return False
        self.arrived[changed.key] = changed.change
        return True

    @property
    def is_whole(self) -> bool:
        return len(self.arrived) == len(self.expected)

    @property
    def changes(self) -> tuple[Put | Removed, ...]:
        return tuple(self.arrived[key] for key in self.expected)


class Feed:
    """The watches of all kinds for one reader. Used as a context manager, which ends them."""

    def __init__(
        self,
        objects: Objects,
        kinds: Sequence[str],
        kept: int,
        writing: asyncio.Lock,
        on_other: Callable[[Object, bool], None],
        patience: float,
    ) -> None:
        """`on_other` is called with objects of no kind of ours, and whether they are gone.

        `patience` is how many seconds a transaction may take to be told whole.
        """
        forms = [objects.forms.of(kind) for kind in kinds]
        self._collections = {form.collection: [f for f in forms if f.collection == form.collection] for form in forms}
        self._objects = objects
        self._kept = kept
        self._writing = writing
        self._on_other = on_other
        self._patience = patience
        self._arrived: asyncio.Queue[_Changed | _Lost] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._batches: list[Batch] = []
        self._keys: dict[str, Key] = {}
        """What each object, by its identity, has been told to be."""
        self._safe: dict[str, int] = {}
        """The version up to which each watch has told everything."""
        self._last = 0
        self._lost = 0
        """How often in a row the past was lost."""
        self.away: dict[str, str] = {}
        """The collections of which nothing is heard now, and why."""

    async def __aenter__(self) -> Feed:
        return self

    async def __aexit__(self, *_: object) -> None:
        await aio.stop(self._tasks)

    def expect(self, batch: Batch) -> None:
        """Tells the changes of a transaction together. They have all been made by now."""
        self._batches.append(batch)
        asyncio.get_running_loop().call_later(self._patience, self._give_up, batch)

    def _give_up(self, batch: Batch) -> None:
        """Lists anew if a transaction has not been told whole: what has arrived of it would never be."""
        if batch in self._batches:
            self._arrived.put_nowait(_Lost("a transaction has not been told whole"))

    async def listing(self) -> Listing:
        """Starts from everything that is stored at one instant."""
        await aio.stop(self._tasks)
        first, *others = self._collections
        objects, version = await self._objects.client.list(first)
        found = {first: objects}
        for collection in others:  # as they were at the same instant
            exactly = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
            found[collection], _ = await self._objects.client.list(collection, **exactly)
        resources: list[AnyResource] = []
        self._keys = {}
        for collection, some in found.items():
            resources += [r for one in some for r in self._resources(collection, one)]
        self._follow(int(version))
        return Listing(self._revision(), tuple(resources))

    async def resume(self, since: int) -> None:
        """Goes on after a revision.

        Raises:
            RevisionTooOld: what has followed it is not known any more.
        """
        version = since // _COMMITS_OF_ONE_VERSION
        await asyncio.gather(*(self._check(collection, version) for collection in self._collections))
        self._last = since
        self._follow(version)

    async def _check(self, collection: str, version: int) -> None:
        _, now = await self._objects.client.list(collection, labelSelector="kuma.io/none")
        if not 0 < version <= int(now):
            raise RevisionTooOld(f"the changes after version {version} are not known")
        try:
            async for _ in self._objects.client.watch(collection, str(version), timeoutSeconds="1"):
                return
        except ApiError as error:
            if error.code != 410:
                raise
            raise RevisionTooOld(f"the changes after version {version} are not known any more") from None

    def _follow(self, version: int) -> None:
        self._arrived = asyncio.Queue()
        self._batches = []
        self._safe = dict.fromkeys(self._collections, version)
        self._tasks = [
            aio.spawn(self._watch(collection, self._arrived), name=f"watch of {collection}")
            for collection in self._collections
        ]

    async def next(self) -> Commit | None:
        """The next commit; None if changes were lost, and all has to be listed anew."""
        while True:
            changed = await self._arrived.get()
            if self._arrived.qsize() > self._kept:
                changed = _Lost("too many changes at once")
            if isinstance(changed, _Lost):
                log.warning("listing anew", reason=changed.reason)
                self._objects.client.metrics.relisted.inc()
                if self._lost:  # again, with nothing heard between
                    await asyncio.sleep(_RETRY.delay(self._lost))
                self._lost += 1
                return None
            self._lost = 0
            async with self._writing:  # of a transaction under way it is not known yet what it will have written
                changes = self._taken(changed)
            if changes:
                return Commit(self._revision(), changes)

    def _taken(self, changed: _Changed) -> tuple[Put | Removed, ...]:
        """Returns what is to be told now; nothing while a transaction is not whole."""
        for batch in self._batches:
            if batch.takes(changed):
                if not batch.is_whole:
                    return ()
                self._batches.remove(batch)
                return batch.changes
        return (changed.change,)

    def _revision(self) -> int:
        """Returns a number that grows with each commit, and from which a watch can go on without missing anything."""
        safe = min(self._safe.values()) * _COMMITS_OF_ONE_VERSION
        self._last = max(self._last + 1, safe)
        return self._last

    async def _watch(self, collection: str, arrived: asyncio.Queue[_Changed | _Lost]) -> None:
        """Tells of the changes in one collection until its past is lost; goes on where it was when it is cut off."""
        failures, why = 0, ""
        while True:
            try:
                opened = functools.partial(self.away.pop, collection, None)
                version = str(self._safe[collection])
                async for type_, found in self._objects.client.watch(collection, version, opened):
                    failures = 0
                    self._take(collection, type_, found, arrived)
            except ApiError as error:
                if error.code == 410:
                    arrived.put_nowait(_Lost("the API server has forgotten what followed"))
                    return
                failures, why = failures + 1, str(error)
                log.error("watch refused", path=collection, reason=why)
            except Unavailable as error:
                failures, why = failures + 1, str(error)
                log.warning("watch interrupted", path=collection, reason=why)
            except Exception:  # whatever it is: a watch that ends without a word leaves proxies with what was
                failures, why = failures + 1, "an error of the control plane; see its log"
                log.exception("watch failed", path=collection)
            if failures:
                self.away[collection] = why
                await asyncio.sleep(_RETRY.delay(failures))

    def _take(self, collection: str, type_: str, found: Object, arrived: asyncio.Queue[_Changed | _Lost]) -> None:
        """Takes in one event. One that cannot be taken in holds up nothing that follows."""
        version = int(found["metadata"]["resourceVersion"])
        try:
            for changed in self._changes(collection, type_, found):
                arrived.put_nowait(changed)
        except Exception:
            self._objects.client.metrics.passed_over.inc()
            log.exception("a change is passed over", path=collection, name=found["metadata"].get("name"))
        self._safe[collection] = version

    def _changes(self, collection: str, type_: str, found: Object) -> Iterable[_Changed]:
        """Yields the changes that an event tells of: two if an object is not any more what it was, such as a Secret
        of another mesh.
        """
        if type_ == "BOOKMARK":
            return
        metadata = found["metadata"]
        version, before = int(metadata["resourceVersion"]), self._keys.get(metadata["uid"])
        key = self._key(collection, found) if type_ != "DELETED" else None
        if before is not None and key != before:
            del self._keys[metadata["uid"]]
            yield _Changed(before, version, Removed(before))
        if key is None and before is None:
            self._on_other(found, type_ == "DELETED")
        for resource in self._resources(collection, found) if key is not None else ():
            yield _Changed(resource.key, version, Put(resource))

    def _key(self, collection: str, found: Object) -> Key | None:
        return next((key for form in self._collections[collection] if (key := form.key(found)) is not None), None)

    def _resources(self, collection: str, found: Object) -> list[AnyResource]:
        """Returns the resource in an object, if it is one of ours and understood, and notes it as told.

        One that is not understood any more stays as it was: to take away what denies would allow.
        """
        resources = [
            r for form in self._collections[collection] if (r := self._objects.understood(form, found)) is not None
        ]
        for resource in resources:
            self._keys[found["metadata"]["uid"]] = resource.key
        return resources
