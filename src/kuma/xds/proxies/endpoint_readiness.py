"""Marks the endpoints of proxies as ready for callers once they serve, and withdraws them before the proxies end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import Conflict, NotFound, Unavailable
from kuma.resources import kinds
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Store, Update
from kuma.store.views import Views
from kuma.xds.envoy import serving_label
from kuma.xds.proxies.proxy import Proxies, Proxy
from kuma.xds.stream.proxy_authentication import Authenticator

log = structlog.get_logger(__name__)

_BATCH = 200
_RETRY = 1.0
"""Seconds."""


class EndpointReadiness:
    """Writes the label `serving_label.SERVING`. A proxy serves when it has answered to its whole configuration."""

    def __init__(
        self,
        store: Store,
        views: Views,
        proxies: Proxies,
        authenticator: Authenticator,
        clock: Clock,
        on_ended: Callable[[Key], None],
    ) -> None:
        """`on_ended` is told of a proxy that ends and is not connected any more."""
        self._store = store
        self._views = views
        self._proxies = proxies
        self._authenticator = authenticator
        self._clock = clock
        self._on_ended = on_ended
        self._due: set[Key] = set()
        self._wake = asyncio.Event()
        proxies.on_progress(self._progressed)

    async def run(self) -> None:
        """Mark proxies as serving until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = sorted(self._due, key=str), set()
            try:
                for start in range(0, len(due), _BATCH):
                    await self._mark_serving(due[start : start + _BATCH])
            except Unavailable as error:
                log.error("endpoints not marked as ready", dataplanes=len(due), reason=str(error))
                self._due.update(due)
                await self._clock.sleep(_RETRY)
                self._wake.set()

    def _progressed(self, proxy: Proxy) -> None:
        if self._hidden(proxy.key):
            self._due.add(proxy.key)
            self._wake.set()

    def _hidden(self, key: Key) -> Resource[DataplaneSpec] | None:
        """The Dataplane, if its proxy serves and callers are not sent there."""
        proxy, dataplane = self._proxies.get(key), self._views.view(key.mesh).dataplanes.get(key.name)
        hidden = dataplane is not None and not serving_label.is_serving(dataplane)
        return dataplane if hidden and proxy is not None and proxy.serves else None

    async def _mark_serving(self, keys: Sequence[Key]) -> None:
        """Writes changes in one transaction, because each sends the endpoints of a service to all its callers."""
        hidden = [dataplane for key in keys if (dataplane := self._hidden(key)) is not None]
        if not hidden:
            return
        try:
            stored = await self._store.transact([Update(serving_label.as_serving(dataplane)) for dataplane in hidden])
        except (Conflict, NotFound):
            if len(keys) > 1:  # one of them stands in the way of the others: each alone
                for dataplane in hidden:
                    await self._mark_serving([dataplane.key])
            return  # somebody was faster: that the proxy has got something to do will be heard
        await self._views.until(lambda: all(self._views.holds(dataplane) for dataplane in stored))

    async def withdraw(self, mesh: str, name: str, token: str, host: str) -> None:
        """A proxy is about to end: no caller is sent to it any more, until it comes back.

        Its place is free for a stream from another address only if that was said at its own, `host`: who has merely
        its token does not get it in this way.

        Raises:
            Unauthenticated, AccessDenied: the token does not hold, or not for this Dataplane.
            NotFound: there is no such Dataplane.
        """
        identity, key = self._authenticator.authenticate(mesh, token), kinds.DATAPLANE.key(name, mesh)
        changed = None
        while changed is None:
            stored = await self._store.get(key)
            self._authenticator.authorize(identity, stored)
            proxy = self._proxies.get(key)
            if proxy is not None:
                proxy.is_leaving = True
                proxy.gives_way = proxy.gives_way or proxy.is_at(host)
            with contextlib.suppress(Conflict):  # somebody was faster: look again
                (changed,) = await self._store.transact([Update(serving_label.as_ended(stored))])
        gone = changed
        if key not in self._proxies:
            self._on_ended(key)
        await self._views.until(lambda: self._views.holds(gone))  # callers are being told by now
        log.info("endpoints withdrawn: the proxy is about to end", mesh=mesh, dataplane=name)
