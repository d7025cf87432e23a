"""All objects of one collection, kept current by a watch: listed once, and again only if the past is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from kuma.base import aio
from kuma.base.errors import Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object

log = structlog.get_logger(__name__)

Place = tuple[str, str]
"""Namespace and name."""
_RETRY = aio.Backoff(first=0.2, last=10.0)


class Informer:
    """The objects below a path. `listed` is set once they have been seen."""

    def __init__(self, client: ApiClient, path: str, **query: str) -> None:
        self._client = client
        self._path = path
        self._query = query
        self._objects: dict[Place, Object] = {}
        self._version = ""
        self._listeners: list[Callable[[Place], None]] = []
        self.listed = asyncio.Event()

    @property
    def objects(self) -> Mapping[Place, Object]:
        """The objects as they are now."""
        return self._objects

    def on_change(self, listener: Callable[[Place], None]) -> None:
        """Call `listener` with the place of each object that is new, another, or gone. It must not block."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Follow until cancelled."""
        failures = 0
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                failures = 0
            except ApiError as error:
                if error.code == 410:
                    self._version = ""
                    continue
                failures += 1
                log.error("watch refused", path=self._path, reason=str(error))
            except Unavailable as error:
                failures += 1
                log.warning("watch interrupted", path=self._path, reason=str(error))
            if failures:
                await asyncio.sleep(_RETRY.delay(failures))

    async def _list(self) -> None:
        found, self._version = await self._client.list(self._path, **self._query)
        before, self._objects = self._objects, {_place(one): one for one in found}
        self.listed.set()
        for place in {*before, *self._objects}:
            if before.get(place) != self._objects.get(place):
                self._tell(place)

    async def _watch(self) -> None:
        async for type_, found in self._client.watch(self._path, self._version, None, **self._query):
            self._version = str(found["metadata"]["resourceVersion"])
            if type_ == "BOOKMARK":
                continue
            place = _place(found)
            found["metadata"].pop("managedFields", None)  # half of an object, and nobody's business here
            if type_ == "DELETED":
                self._objects.pop(place, None)
            else:
                self._objects[place] = found
            self._tell(place)

    def _tell(self, place: Place) -> None:
        for listener in self._listeners:
            listener(place)


def _place(found: Object) -> Place:
    return str(found["metadata"].get("namespace") or ""), str(found["metadata"]["name"])
