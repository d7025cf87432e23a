"""Ends sidecars whose Pods have nothing else to do, so that Jobs end on clusters without native sidecars."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from kuma.base import aio
from kuma.base.errors import NotFound, Unavailable
from kuma.kubernetes.api.informer import Informer, Place
from kuma.kubernetes.workloads import jobs, metadata

log = structlog.get_logger(__name__)

_RETRY = aio.Backoff(first=1.0, last=30.0)
End = Callable[[str, str], Awaitable[None]]
"""Ends the proxy that is connected for a Dataplane: its mesh and its name."""


class EndedJobs:
    """Looks at Pods as they change. A sidecar that does not end is asked again.

    It is asked while its node says that it runs: so the Pod has its address, and nobody else does.
    """

    def __init__(self, pods: Informer, end: End, retry: aio.Backoff = _RETRY) -> None:
        """`pods` is run by somebody else; `retry` gives the seconds after which a sidecar is asked again."""
        self._pods = pods
        self._end = end
        self._retry = retry
        self._asked: dict[Place, int] = {}
        """How often each sidecar that is to end has been asked."""
        self._told: dict[Place, str] = {}
        """What was logged of each last: what is the same is not told again and again."""
        self._wake = asyncio.Event()
        pods.on_change(self._look)

    def _look(self, place: Place) -> None:
        if place not in self._asked and self._waits(place):
            self._asked[place] = 0
            self._wake.set()

    def _waits(self, place: Place) -> bool:
        pod = self._pods.objects.get(place)
        return pod is not None and metadata.is_injected(pod) and jobs.waits_for_sidecar(pod)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            pause = min((self._retry.delay(count) for count in self._asked.values()), default=None)
            try:
                async with asyncio.timeout(pause if self._asked else None):
                    await self._wake.wait()
            except TimeoutError:
                pass  # those that have been asked are looked at again
            self._wake.clear()
            self._asked = {place: count for place, count in self._asked.items() if self._waits(place)}
            self._told = {place: told for place, told in self._told.items() if place in self._asked}
            await asyncio.gather(*(self._ask(place) for place in self._asked))

    async def _ask(self, place: Place) -> None:
        pod, name = self._pods.objects.get(place), ".".join(reversed(place))
        if pod is None:
            return  # it has gone in this moment
        self._asked[place] += 1
        try:
            await self._end(metadata.mesh_of(pod), name)
            reason = ""
        except (NotFound, Unavailable) as error:
            reason = str(error)
        if self._told.get(place) == reason:
            return
        self._told[place] = reason
        if reason:
            log.warning("the work of a Pod is done: its sidecar is to end, and is asked again", pod=name, reason=reason)
        else:
            log.info("the work of a Pod is done: its sidecar ends", pod=name)
