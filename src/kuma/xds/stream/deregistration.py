"""Dataplanes that their proxies brought along, removed a while after the proxy has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import KumaError
from kuma.resources import kinds
from kuma.resources.resource import Key, Resource
from kuma.store.manager import ResourceManager
from kuma.xds.stream.proxy_authentication import BY_PROXY, REGISTERED

log = structlog.get_logger(__name__)


class Deregistration:
    """Waits out the grace period of each proxy that left, so that a lost connection removes no endpoint."""

    def __init__(
        self,
        manager: ResourceManager,
        clock: Clock,
        *,
        grace: float,
        grace_at_start: float,
        is_connected: Callable[[Key], bool],
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._grace = grace
        self._grace_at_start = grace_at_start
        self._is_connected = is_connected
        self._waiting: dict[Key, asyncio.Task[None]] = {}
        self._has_ended = False

    async def run(self) -> None:
        """Remove until cancelled. What is still waiting then is taken up again at the next start."""
        try:
            for dataplane in (await self._manager.list(kinds.DATAPLANE.name)).items:
                if _registered(dataplane) and not self._is_connected(dataplane.key):
                    self._wait(dataplane.key, self._grace_at_start)
            await asyncio.Event().wait()
        finally:
            self._has_ended = True  # streams that end later, with the control plane, leave nothing behind
            await aio.stop(self._waiting.values())

    def left(self, key: Key) -> None:
        """Notes that the stream of a proxy has ended."""
        self._wait(key, self._grace)

    async def back(self, key: Key) -> None:
        """Notes that the proxy has come back; returns once nothing removes it any more."""
        task = self._waiting.pop(key, None)
        if task is not None:
            await aio.stop([task])

    def _wait(self, key: Key, grace: float) -> None:
        if key not in self._waiting and not self._has_ended:
            self._waiting[key] = aio.spawn(self._remove_after(key, grace), name=f"deregistration of {key.name}")

    async def _remove_after(self, key: Key, grace: float) -> None:
        await self._clock.sleep(grace)
        try:
            stored = await self._manager.find(key)
            if stored is not None and _registered(stored) and not self._is_connected(key):
                await self._manager.delete(key)
                log.info("dataplane removed: its proxy has left", mesh=key.mesh, dataplane=key.name)
        except KumaError as error:
            log.error("dataplane of a departed proxy not removed", dataplane=str(key), reason=str(error))
        finally:
            if self._waiting.get(key) is asyncio.current_task():
                del self._waiting[key]


def _registered(dataplane: Resource[Any]) -> bool:
    return dataplane.labels.get(REGISTERED) == BY_PROXY
