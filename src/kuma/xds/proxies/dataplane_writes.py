"""Writes what is found out of proxies into their Dataplanes: many at once, and again if others were faster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import Conflict, NotFound, Unavailable
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Store, Update
from kuma.store.views import Views

log = structlog.get_logger(__name__)

_BATCH = 200
_RETRY = 1.0
"""Seconds."""


class DataplaneWrites:
    """Writes what `wanted` makes of a Dataplane, when it may be another; None if it is as it should be.

    Several changes go in one transaction, because each sends the endpoints of a service to all its callers.
    """

    def __init__(
        self,
        store: Store,
        views: Views,
        clock: Clock,
        what: str,
        wanted: Callable[[Key], Resource[DataplaneSpec] | None],
    ) -> None:
        """`what` is what is said to be missing while the store cannot be written."""
        self._store = store
        self._views = views
        self._clock = clock
        self._what = what
        self._wanted = wanted
        self._due: set[Key] = set()
        self._wake = asyncio.Event()

    def look(self, key: Key) -> None:
        """Has a Dataplane written, if it is not as it should be."""
        if self._wanted(key) is not None:
            self._due.add(key)
            self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = sorted(self._due, key=str), set()
            try:
                for start in range(0, len(due), _BATCH):
                    await self._write(due[start : start + _BATCH])
            except Unavailable as error:
                log.error(self._what, dataplanes=len(due), reason=str(error))
                self._due.update(due)
                await self._clock.sleep(_RETRY)
                self._wake.set()

    async def _write(self, keys: Sequence[Key]) -> None:
        changed = [dataplane for key in keys if (dataplane := self._wanted(key)) is not None]
        if not changed:
            return
        try:
            stored = await self._store.transact([Update(dataplane) for dataplane in changed])
        except (Conflict, NotFound):
            if len(keys) > 1:  # one of them stands in the way of the others: each alone
                for dataplane in changed:
                    await self._write([dataplane.key])
            return  # somebody was faster: that the proxy has got something to do will be heard
        await self._views.until(lambda: all(self._views.holds(dataplane) for dataplane in stored))
