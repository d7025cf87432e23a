"""Writes what is found out of proxies into their Dataplanes: many at once, and again if others were faster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import structlog

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import Conflict, NotFound, Unavailable
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Key, Resource
from kuma.resources.view import changed_names
from kuma.store.protocol import Store, Update
from kuma.store.views import Views

log = structlog.get_logger(__name__)

_BATCH = 200
"""Dataplanes of one transaction."""
_RETRY = 1.0
"""Seconds."""
_LONGEST_PAUSE = 3.0
_LULL = 0.3
"""Seconds: if no other comes in so long, there is nothing to collect."""


Dataplane = Resource[DataplaneSpec]
Urgent = Callable[[Dataplane, Dataplane | None], bool]


class DataplaneWrites:
    """Writes what `wanted` makes of a Dataplane, when it may be another; None if it is as it should be.

    Several changes go in one transaction, because each sends the endpoints of a service to all its callers. A change
    that comes alone is written at once; after it others are collected, the longer the more there were, while they come.
    """

    def __init__(
        self,
        store: Store,
        views: Views,
        clock: Clock,
        what: str,
        wanted: Callable[[Key], Resource[DataplaneSpec] | None],
        *,
        pause_each: float = 0.0,
        batch: int = _BATCH,
        is_urgent: Urgent = lambda _, __: False,
        pause: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        """`what` is what is said to be missing while the store cannot be written.

        `pause_each` are the seconds in which others are collected for each Dataplane that was written, up to
        `_LONGEST_PAUSE` and to the first lull; `batch` is how many are written in one transaction; `is_urgent` tells
        of a Dataplane, and of what has become of it, whether nobody is waited for any more; `pause` waits for some
        seconds.
        """
        self._store = store
        self._views = views
        self._clock = clock
        self._what = what
        self._wanted = wanted
        self._pause_each = pause_each
        self._batch = batch
        self._pause = pause
        self._is_urgent = is_urgent
        self._seen: dict[str, Mapping[str, Dataplane]] = {}
        """By mesh."""
        self._due: set[Key] = set()
        self._wake = asyncio.Event()
        self._hurried = asyncio.Event()
        self._turn = asyncio.Lock()
        views.on_change(self._changed)

    def look(self, key: Key) -> None:
        """Has a Dataplane written, if it is not as it should be."""
        if self._wanted(key) is not None:
            self._due.add(key)
            self._wake.set()

    def _changed(self, meshes: frozenset[str]) -> None:
        """Has what is being collected written at once if that is due to what has become of a Dataplane."""
        for mesh in meshes:
            before, now = self._seen.pop(mesh, {}), self._views.view(mesh).dataplanes
            if now:
                self._seen[mesh] = now
            changed = (name for name in changed_names(before, now) if name in before)
            if any(self._is_urgent(before[name], now.get(name)) for name in changed):
                self._hurried.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                written = await self.catch_up()
            except Unavailable as error:
                log.error(self._what, dataplanes=len(self._due), reason=str(error))
                await self._clock.sleep(_RETRY)
            else:
                await self._collect(min(written * self._pause_each, _LONGEST_PAUSE))

    async def _collect(self, seconds: float) -> None:
        """Lets others come for so long, or until none comes any more, or somebody cannot wait."""
        known = -1
        self._hurried.clear()
        hurried = aio.spawn(self._hurried.wait(), name="whoever cannot wait")
        try:
            while seconds > 0 and len(self._due) > known and not hurried.done():
                known = len(self._due)
                pause = aio.spawn(self._pause(min(seconds, _LULL)), name="collecting")
                try:
                    await asyncio.wait([pause, hurried], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await aio.stop([pause])
                seconds -= _LULL
        finally:
            await aio.stop([hurried])

    async def catch_up(self) -> int:
        """Write all that is to be written now, and let end what is being written; returns how many Dataplanes it wrote.

        What is left is tried again if this ends early, such as when nobody waits for it any more.

        Raises:
            Unavailable: the store cannot be written.
        """
        async with self._turn:
            due, self._due = sorted(self._due, key=str), set()
            try:
                batches = (due[start : start + self._batch] for start in range(0, len(due), self._batch))
                return sum([await self._write(batch) for batch in batches])
            except BaseException:
                self._due.update(due)
                self._wake.set()
                raise

    async def _write(self, keys: Sequence[Key]) -> int:
        changed = [dataplane for key in keys if (dataplane := self._wanted(key)) is not None]
        if not changed:
            return 0
        try:
            stored = await self._store.transact([Update(dataplane) for dataplane in changed])
        except (Conflict, NotFound):
            if len(keys) > 1:  # one of them stands in the way of the others: each alone
                return sum([await self._write([dataplane.key]) for dataplane in changed])
            return 0  # somebody was faster: that the proxy has got something to do will be heard
        await self._views.until(lambda: all(self._views.holds(dataplane) for dataplane in stored))
        return len(changed)
