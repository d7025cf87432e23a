"""Shows the endpoints of proxies to their callers, and takes them away before they end: no port is called in vain."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import Conflict, NotFound, Unavailable
from kuma.resources import kinds
from kuma.resources.resource import Key
from kuma.store.protocol import Store, Update
from kuma.store.views import Views
from kuma.xds import publication
from kuma.xds.arrivals import Arrivals
from kuma.xds.proxy import Proxies, Proxy

log = structlog.get_logger(__name__)

_RETRY = 1.0
"""Seconds."""


class Publisher:
    """Writes the label `publication.SERVING`. A proxy serves when it has answered to its whole configuration."""

    def __init__(self, store: Store, views: Views, proxies: Proxies, arrivals: Arrivals, clock: Clock) -> None:
        self._store = store
        self._views = views
        self._proxies = proxies
        self._arrivals = arrivals
        self._clock = clock
        self._due: set[Key] = set()
        self._wake = asyncio.Event()
        proxies.on_progress(self._progressed)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, set()
            for key in sorted(due, key=str):
                try:
                    await self._publish(key)
                except Unavailable as error:
                    log.error("endpoints not published", dataplane=str(key), reason=str(error))
                    self._due.add(key)
            if self._due:
                await self._clock.sleep(_RETRY)
                self._wake.set()

    def _progressed(self, proxy: Proxy) -> None:
        if proxy.serves and self._is_hidden(proxy.key):
            self._due.add(proxy.key)
            self._wake.set()

    def _is_hidden(self, key: Key) -> bool:
        dataplane = self._views.view(key.mesh).dataplanes.get(key.name)
        return dataplane is not None and not publication.is_published(dataplane)

    async def _publish(self, key: Key) -> None:
        proxy = self._proxies.get(key)
        if proxy is None or not proxy.serves:
            return
        try:
            stored = await self._store.get(key)
            if not publication.is_published(stored):
                await self._store.transact([Update(publication.published(stored))])
        except Conflict:
            self._due.add(key)  # somebody was faster: look again
            self._wake.set()
        except NotFound:
            return

    async def withdraw(self, mesh: str, name: str, token: str) -> None:
        """A proxy is about to end: no caller is sent to it any more, until it comes back.

        Raises:
            Unauthenticated, AccessDenied: the token does not hold, or not for this Dataplane.
            NotFound: there is no such Dataplane.
        """
        identity, key = self._arrivals.authenticate(mesh, token), kinds.DATAPLANE.key(name, mesh)
        changed = None
        while changed is None:
            stored = await self._store.get(key)
            self._arrivals.authorize(identity, stored)
            proxy = self._proxies.get(key)
            if proxy is not None:
                proxy.is_leaving = True
            with contextlib.suppress(Conflict):  # somebody was faster: look again
                (changed,) = await self._store.transact([Update(publication.withdrawn(stored))])
        gone = changed
        await self._views.until(lambda: self._views.holds(gone))  # callers are being told by now
        log.info("endpoints withdrawn: the proxy is about to end", mesh=mesh, dataplane=name)
