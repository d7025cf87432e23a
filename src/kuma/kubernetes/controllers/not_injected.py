"""Tells, by an event, of each Pod that should have a sidecar and cannot.

Whoever created it may have seen no warning: a controller sees none.
"""

from __future__ import annotations

import asyncio

from kuma.kubernetes.api import events
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.api.informer import Informer, Place
from kuma.kubernetes.injection import choices
from kuma.kubernetes.workloads import metadata

_SOURCE, _REASON = "k8s.kuma.io/injector", "KumaSidecarNotInjected"


class NotInjected:
    """Looks at Pods once, as they come."""

    def __init__(self, client: ApiClient, pods: Informer) -> None:
        self._client = client
        self._pods = pods
        self._due: asyncio.Queue[Place] = asyncio.Queue()
        self._told: set[str] = set()
        """Identities of Pods that have been told of; all others are forgotten with them."""
        pods.on_change(self._look)

    def _look(self, place: Place) -> None:
        pod = self._pods.objects.get(place)
        if pod is not None and metadata.of(pod).get(choices.NOT_INJECTED) and pod["metadata"]["uid"] not in self._told:
            self._told.add(pod["metadata"]["uid"])
            self._due.put_nowait(place)

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            place = await self._due.get()
            pod = self._pods.objects.get(place)
            if pod is None:
                continue
            self._told &= {str(one["metadata"]["uid"]) for one in self._pods.objects.values()}
            reason = metadata.of(pod).get(choices.NOT_INJECTED, "")
            text = f"No sidecar is injected into this Pod, and it is no part of a mesh: {reason}"
            await events.tell(self._client, pod, _SOURCE, "Warning", _REASON, text, once=True)
