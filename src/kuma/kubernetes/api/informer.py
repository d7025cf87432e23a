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
        self._failures = 0
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
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except ApiError as error:
                self._refused(error)
            except Unavailable as error:
                self._failures += 1
                log.warning("watch interrupted", path=self._path, reason=str(error))
            except Exception:  # whatever it is: a watch that ends without a word leaves everything as it was
                self._failures += 1
                self._version = ""  # what could not be taken in is listed
                self._client.metrics.passed_over.inc()
                log.exception("watch failed", path=self._path)
            if self._failures:
                await asyncio.sleep(_RETRY.delay(self._failures))

    def _refused(self, error: ApiError) -> None:
        self._failures += 1
        if error.code != 410:
            log.error("watch refused", path=self._path, reason=str(error))
            return
        self._version = ""
        self._client.metrics.relisted.inc()
        log.warning("listing anew", path=self._path, reason="the API server has forgotten what followed")

    async def _list(self) -> None:
        found, version = await self._client.list(self._path, **self._query)
        before, self._objects = self._objects, {_place(one): _kept(one) for one in found}
        self._version = version
        self.listed.set()
        for place in {*before, *self._objects}:
            if before.get(place) != self._objects.get(place):
                self._tell(place)

    async def _watch(self) -> None:
        async for type_, found in self._client.watch(self._path, self._version, self._opened, **self._query):
            if type_ != "BOOKMARK":
                self._take(type_, _kept(found))
            self._version = str(found["metadata"]["resourceVersion"])

    def _opened(self) -> None:
        self._failures = 0

    def _take(self, type_: str, found: Object) -> None:
        place = _place(found)
        if type_ == "DELETED":
            self._objects.pop(place, None)
        else:
            self._objects[place] = found
        self._tell(place)

    def _tell(self, place: Place) -> None:
        for listener in self._listeners:
            try:
                listener(place)
            except Exception:  # the others are told all the same, and so is what follows
                self._client.metrics.passed_over.inc()
                log.exception("a change is passed over", path=self._path, namespace=place[0], name=place[1])


def _kept(found: Object) -> Object:
    """Returns an object without what is half of it, and nobody's business here."""
    found["metadata"].pop("managedFields", None)
    return found


def _place(found: Object) -> Place:
    return str(found["metadata"].get("namespace") or ""), str(found["metadata"]["name"])
