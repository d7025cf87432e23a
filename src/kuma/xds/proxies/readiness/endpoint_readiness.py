"""Marks the endpoints of proxies as ready for callers once they serve, and withdraws them before the proxies end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, Conflict
from kuma.base.values import addresses
from kuma.coordination.coordination import Coordination
from kuma.resources import kinds
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Store, Update, find
from kuma.store.views import Views
from kuma.xds.envoy.services import serving_label
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.proxy import Proxy
from kuma.xds.proxies.readiness.dataplane_writes import DataplaneWrites
from kuma.xds.proxies.readiness.successors import Successors
from kuma.xds.stream.proxy_authentication import Authenticator

log = structlog.get_logger(__name__)

_TOLD = 5.0
"""Seconds that the end of a proxy waits for others to answer that they send nobody there any more."""
_REPLACED = 4.0
"""Seconds that the end of the last proxy of a service waits for others that another control plane is about to show: a
little more than it collects them for."""
_COLLECTED = 0.1
"""Seconds for each proxy that has begun to serve, in which further ones are waited for: while a whole mesh arrives, its
callers are told of many at once."""


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
        coordination: Coordination,
    ) -> None:
        """`on_ended` is told of a proxy that ends and is not connected any more."""
        self._successors = Successors(views.view, coordination)
        self._store = store
        self._views = views
        self._proxies = proxies
        self._authenticator = authenticator
        self._clock = clock
        self._on_ended = on_ended
        self._told: list[_Told] = []
        self._writes = DataplaneWrites(
            store,
            views,
            clock,
            "endpoints not marked as ready",
            self._serving,
            pause_each=_COLLECTED,
            is_urgent=serving_label.stops,  # another control plane may have been told
        )
        proxies.on_progress(self._progressed)

    async def run(self) -> None:
        """Mark proxies as serving until cancelled."""
        await self._writes.run()

    def _progressed(self, proxy: Proxy) -> None:
        self._writes.look(proxy.key)
        for told in self._told:
            told.hear(proxy, is_here=proxy.key in self._proxies)

    def _serving(self, key: Key) -> Resource[DataplaneSpec] | None:
        """Returns the Dataplane as one that serves, if its proxy does and callers are not sent there."""
        proxy, dataplane = self._proxies.get(key), self._views.view(key.mesh).dataplanes.get(key.name)
        if dataplane is None or proxy is None or serving_label.is_serving(dataplane) or not proxy.serves:
            return None
        return serving_label.as_serving(dataplane)

    async def withdraw(self, mesh: str, name: str, token: str, host: str, proof: str = "") -> None:
        """Sends no caller any more to a proxy that is about to end, until it comes back, and frees its place.

        Returns once all proxies that are connected here have answered to that, or after `_TOLD`.

        Who has merely its token ends nothing: that has to be said at its own address, `host`, or with its `proof`.

        Raises:
            Unauthenticated, AccessDenied: the token does not hold, or not for this Dataplane, or somebody else says so.
            NotFound: there is no such Dataplane.
        """
        await self._authenticator.review(token)
        identity, key = self._authenticator.authenticate(mesh, token), kinds.DATAPLANE.key(name, mesh)
        changed = None
        # Whoever takes its place is known to its callers before it goes.
        await self._writes.catch_up()
        if self._successors.are_about_to_come(key):
            self._authenticator.authorize(identity, self._views.view(mesh).dataplanes[name])
            shown = self._views.until(lambda: not self._successors.are_about_to_come(key))
            await self._until(shown, _REPLACED, f"successors of {key}")
        while changed is None:
            stored = await self._store.get(key)
            self._authenticator.authorize(identity, stored)
            if not await self._is_said_by_itself(key, host, proof):
                raise AccessDenied(
                    f"the proxy of {mesh}.{name} is at another address: it has to say by itself that it ends. If you "
                    "have not moved it, somebody else has its token: revoke it"
                )
            proxy = self._proxies.get(key)
            if proxy is not None:
                proxy.is_leaving = proxy.gives_way = True
            with contextlib.suppress(Conflict):  # somebody was faster: look again
                (changed,) = await self._store.transact([Update(serving_label.as_ended(stored))])
        gone = changed
        if key not in self._proxies:
            self._on_ended(key)
        await self._views.until(lambda: self._views.holds(gone))  # callers are being told by now
        await self._until_told(key)
        log.info("endpoints withdrawn: the proxy is about to end", mesh=mesh, dataplane=name)

    async def _until_told(self, leaving: Key) -> None:
        told = _Told(proxy for proxy in self._proxies if proxy.key.mesh == leaving.mesh and proxy.key != leaving)
        self._told.append(told)
        try:
            await self._until(told.by_all.wait(), _TOLD, f"answers to the end of {leaving}")
        finally:
            self._told.remove(told)

    async def _until(self, event: Coroutine[Any, Any, object], seconds: float, what: str) -> None:
        """Waits for an event, but no longer than so many seconds."""
        waits = [aio.spawn(event, name=what), aio.spawn(self._clock.sleep(seconds), name=f"patience with {what}")]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await aio.stop(waits)

    async def _is_said_by_itself(self, key: Key, host: str, proof: str) -> bool:
        """Tells whether it is the proxy that is heard; one that is not connected by where it was seen last."""
        proxy = self._proxies.get(key)
        if proxy is not None:
            return proxy.is_ended_by(host, proof)
        insight = await find(self._store, kinds.DATAPLANE_INSIGHT.key(key.name, key.mesh))
        last = insight.spec.administration if insight is not None else None
        return last is None or not last.host or addresses.are_of_one_machine(last.host, host)


class _Told:
    """Proxies that have to answer to a change: those which had not when it began."""

    def __init__(self, proxies: Iterable[Proxy]) -> None:
        self._left = {proxy.key for proxy in proxies if not proxy.has_answered}
        self.by_all = asyncio.Event()
        self._look()

    def hear(self, proxy: Proxy, *, is_here: bool) -> None:
        """Takes note of how far a proxy is; one that has left answers no more; one that is back in its place does."""
        if proxy.key in self._left and (proxy.has_answered or not is_here):
            self._left.discard(proxy.key)
            self._look()

    def _look(self) -> None:
        if not self._left:
            self.by_all.set()
