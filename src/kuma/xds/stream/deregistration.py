"""Removes Dataplanes that their proxies brought along, a while after the proxy has left for good."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import structlog

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import Conflict, KumaError, NotFound, Unavailable
from kuma.resources import kinds
from kuma.resources.labels import REGISTERED
from kuma.resources.resource import Key, Resource
from kuma.store.manager import ResourceManager
from kuma.store.protocol import Delete, Expect, Operation, Update
from kuma.xds.envoy.services import serving_label
from kuma.xds.stream.proxy_authentication import BY_PROXY

log = structlog.get_logger(__name__)


_SEEN = 30.0
"""Seconds for which a proxy that was refused for nothing but its token's end is known to be there.

Envoy tries again after five seconds at most.
"""
_RETRY = 1.0
_AGAIN = 10.0
"""Seconds after which a proxy is looked at again if the store cannot be used, or says that it has moved."""
_LONGEST_PAUSE = 600.0
"""Seconds; a clock that was set is noticed within this time."""


class Deregistration:
    """Waits out the grace period of each proxy that left, so that a lost connection removes no endpoint.

    The Dataplane of one that has not said that it ends stays, without callers, as long as its certificate holds. It
    keeps its callers while the proxy is there, and nothing but an expired token keeps it from being connected.
    """

    def __init__(
        self,
        manager: ResourceManager,
        clock: Clock,
        *,
        grace: float,
        grace_at_start: float,
        is_connected: Callable[[Key], bool],
        departure: Callable[[Key], Awaitable[tuple[Expect, ...] | None]],
    ) -> None:
        """`is_connected` tells what is known of a proxy, `departure` what is stored: see `ProxiesElsewhere`."""
        self._manager = manager
        self._clock = clock
        self._grace = grace
        self._grace_at_start = grace_at_start
        self._is_connected = is_connected
        self._departure = departure
        self._waiting: dict[Key, asyncio.Task[None]] = {}
        self._ends: dict[Key, datetime | None] = {}
        """When the proxies may go on no longer that this process has seen leave; None for those that have ended."""
        self._seen: dict[Key, float] = {}
        """When proxies that wait were refused last for their expired token, in monotonic seconds."""
        self._has_ended = False
        self._again = asyncio.Event()

    async def run(self) -> None:
        """Remove until cancelled. What is still waiting then is taken up again at the next start."""
        try:
            while True:
                self._again.clear()
                await self._take_stock()
                await self._again.wait()
        finally:
            self._has_ended = True  # streams that end later, with the control plane, leave nothing behind
            await aio.stop(self._waiting.values())

    def take_stock_again(self) -> None:
        """Notes that a control plane has left: the proxies that it served are to come back somewhere else."""
        self._again.set()

    async def _take_stock(self) -> None:
        try:
            dataplanes = (await self._manager.list(kinds.DATAPLANE.name)).items
        except Unavailable:
            await self._clock.sleep(_RETRY)
            self._again.set()
            return
        for dataplane in dataplanes:
            if _registered(dataplane) and not self._is_connected(dataplane.key):
                self._wait(dataplane.key, self._grace_at_start)

    def left(self, key: Key, may_go_on_until: datetime | None) -> None:
        """Notes that the stream of a proxy has ended, and when the certificate ends with which it may go on."""
        self._ends[key] = may_go_on_until
        self._wait(key, self._grace)

    def seen(self, key: Key) -> None:
        """Notes that the proxy is there, and is refused for nothing but its expired token."""
        if key in self._waiting:
            self._seen[key] = self._clock.monotonic()

    async def back(self, key: Key) -> None:
        """Notes that the proxy has come back; returns once nothing removes it any more."""
        self._ends.pop(key, None)
        self._seen.pop(key, None)
        task = self._waiting.pop(key, None)
        if task is not None:
            await aio.stop([task])

    def ended(self, key: Key) -> None:
        """Notes that a proxy whose stream has ended before has said that it ends: it does not go on any more."""
        task = self._waiting.pop(key, None)
        if task is not None:
            task.cancel()
        self._ends[key] = None
        self._wait(key, self._grace)

    def _wait(self, key: Key, grace: float) -> None:
        if key not in self._waiting and not self._has_ended:
            self._waiting[key] = aio.spawn(self._remove_after(key, grace), name=f"deregistration of {key.name}")

    async def _remove_after(self, key: Key, grace: float) -> None:
        pause: float | None = grace
        could_not_return = False
        try:
            while pause is not None:
                await self._clock.sleep(pause)
                try:
                    if could_not_return:  # until now: nobody can take a proxy in without the store
                        await self._manager.find(key)
                        could_not_return, pause = False, self._grace_at_start
                    else:
                        pause = await self._look(key)
                except Unavailable:  # which has been logged
                    could_not_return, pause = True, _AGAIN
        except KumaError as error:
            log.error("dataplane of a departed proxy not removed", dataplane=str(key), reason=str(error))
        finally:
            if self._waiting.get(key) is asyncio.current_task():
                del self._waiting[key]
                self._ends.pop(key, None)
                self._seen.pop(key, None)

    async def _look(self, key: Key) -> float | None:
        """Removes the Dataplane, or has callers sent elsewhere while its proxy may go on; returns when to look again.

        A proxy that is merely cut off admits whoever finds it, until its certificate ends: it is not to be forgotten.
        """
        stored = await self._manager.find(key)
        if stored is None or not _registered(stored) or self._is_connected(key):
            return None
        now, end = self._clock.now(), await self._may_go_on_until(stored)
        seen_for = self._seen.get(key, -_SEEN) + _SEEN - self._clock.monotonic()
        if seen_for > 0 and not serving_label.has_ended(stored) and (end is None or end > now):
            return seen_for  # without mutual TLS there is no certificate that could end
        pause = None if end is None or end <= now else min((end - now).total_seconds(), _LONGEST_PAUSE)
        if pause is not None and not serving_label.is_serving(stored):
            return pause
        departure = await self._departure(key)
        if departure is None:
            return _AGAIN
        change: Operation = Delete(key) if pause is None else Update(serving_label.as_not_serving(stored))
        try:
            await self._manager.store.transact([*departure, change])
        except Conflict:
            return 0
        except NotFound:  # another control plane was faster
            return None
        if pause is None:
            log.info("dataplane removed: its proxy has left", mesh=key.mesh, dataplane=key.name)
        return pause

    async def _may_go_on_until(self, dataplane: Resource[Any]) -> datetime | None:
        """Returns when the proxy's certificate ends; None if it has none, or has said that it ends."""
        if dataplane.key in self._ends:
            return self._ends[dataplane.key]
        insight = await self._manager.find(kinds.DATAPLANE_INSIGHT.key(dataplane.name, dataplane.mesh))
        if insight is None or insight.spec.mtls is None or serving_label.has_ended(dataplane):
            return None
        end: datetime | None = insight.spec.mtls.certificate_expiration_time
        return end


def _registered(dataplane: Resource[Any]) -> bool:
    return dataplane.labels.get(REGISTERED) == BY_PROXY
