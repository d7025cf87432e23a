"""Tells, by events, of Pods that are not what they ask for: no sidecar, or annotations that have no effect.

Whoever created them may have seen no warning: a controller sees none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog

from kuma.kubernetes.api import events
from kuma.kubernetes.api.client import ApiClient, Object
from kuma.kubernetes.api.informer import Informer, Place
from kuma.kubernetes.injection import choices
from kuma.kubernetes.workloads import metadata

log = structlog.get_logger(__name__)

_SOURCE = "k8s.kuma.io/injector"
_NOT_INJECTED, _WITHOUT_EFFECT = "KumaSidecarNotInjected", "KumaAnnotationsWithoutEffect"


class PodEvents:
    """Looks at Pods once, as they come."""

    def __init__(self, client: ApiClient, pods: Informer) -> None:
        self._client = client
        self._pods = pods
        self._due: asyncio.Queue[Place] = asyncio.Queue()
        self._seen: set[str] = set()
        """Identities of Pods that have been looked at; all others are forgotten with them."""
        pods.on_change(self._look)

    def _look(self, place: Place) -> None:
        pod = self._pods.objects.get(place)
        if pod is None:
            self._seen &= {str(one["metadata"]["uid"]) for one in self._pods.objects.values()}
        elif pod["metadata"]["uid"] not in self._seen:
            self._seen.add(pod["metadata"]["uid"])
            if any(_told(pod)):
                self._due.put_nowait(place)

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            place = await self._due.get()
            pod = self._pods.objects.get(place)
            if pod is None:
                continue
            for reason, text in _told(pod):
                if reason == _WITHOUT_EFFECT:
                    self._client.metrics.without_effect.inc()
                    log.warning("annotations without effect", pod=".".join(reversed(place)), reason=text)
                await events.tell(self._client, pod, _SOURCE, "Warning", reason, text, once=True)


def _told(pod: Object) -> Iterator[tuple[str, str]]:
    """Yields the reason and the text of each event of a Pod."""
    if reason := metadata.of(pod).get(choices.NOT_INJECTED, ""):
        yield _NOT_INJECTED, f"No sidecar is injected into this Pod, and it is no part of a mesh: {reason}"
    if metadata.is_injected(pod) and (found := "; ".join(choices.warnings(pod))):
        yield _WITHOUT_EFFECT, found
