"""Knows the certificates of proxies at other control planes, commit by commit as those tell of them."""

from __future__ import annotations

from collections.abc import Iterator

from kuma.coordination.coordination import Coordination
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec, MtlsInsight
from kuma.resources.resource import Key
from kuma.store.protocol import AnyResource, Commit, Listing, Put
from kuma.store.views import Views


class CertifiedElsewhere:
    """Reads nothing from the store: whoever asks again and again costs what has changed in between."""

    def __init__(self, views: Views, coordination: Coordination) -> None:
        self._coordination = coordination
        self._known: dict[Key, DataplaneInsightSpec] = {}
        """Of proxies that are connected and have a certificate."""
        views.on_event(self._take_in)

    def __call__(self) -> Iterator[tuple[Key, MtlsInsight]]:
        """Yields the certificates, by the keys of their insights, that control planes which are there tell of."""
        others = self._coordination.others()
        for key, spec in list(self._known.items()) if others else ():
            if spec.server in others and spec.mtls is not None:
                yield key, spec.mtls

    def _take_in(self, event: Listing | Commit) -> None:
        if isinstance(event, Listing):
            self._known = {}
            for resource in event.resources:
                self._put(resource)
            return
        for change in event.changes:
            if isinstance(change, Put):
                self._put(change.resource)
            else:
                self._known.pop(change.key, None)

    def _put(self, resource: AnyResource) -> None:
        if resource.key.kind != kinds.DATAPLANE_INSIGHT.name:
            return
        self._known.pop(resource.key, None)
        if resource.spec.online and resource.spec.mtls:
            self._known[resource.key] = resource.spec
