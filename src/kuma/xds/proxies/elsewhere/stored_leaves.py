"""Knows what the leaves of proxies show, by what control planes have stored of them: of those elsewhere, too."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from kuma.pki import spiffe
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import MtlsInsight
from kuma.resources.view import MeshView
from kuma.store.protocol import AnyResource, Commit, Listing, Put, Store
from kuma.store.views import Views
from kuma.xds.envoy.snapshot import MeshConfig
from kuma.xds.proxies.leaves.leaf import NAMES_CHANGED


class StoredLeaves:
    """Keeps the last certificate that is stored of each Dataplane."""

    def __init__(self, views: Views) -> None:
        self._known: dict[str, dict[str, MtlsInsight]] = {}
        """By mesh and Dataplane."""
        views.on_event(self._take_in)

    async def recall(self, store: Store) -> None:
        """Takes in what is stored before anything is decided by it."""
        self._take_in_all((await store.list(kinds.DATAPLANE_INSIGHT.name)).items)

    def lacking(self, config: MeshConfig, names: Iterable[str], now: datetime, recent: timedelta) -> frozenset[str]:
        """Returns those of the Dataplanes that may be known by less than what permissions look at.

        Their leaf, which holds, does not show all tags that it is to show; or it has shown them for no longer than
        `recent`, so that connections may be open that were made with the one before.
        """
        mesh = config.view.name
        known = self._known.get(mesh, {})

        def is_lacking(name: str, leaf: MtlsInsight) -> bool:
            if leaf.certificate_expiration_time is not None and leaf.certificate_expiration_time <= now:
                return False
            wanted, shown = spiffe.tags(mesh, config.uris(name)), spiffe.tags(mesh, leaf.spiffe_ids)
            return _is_recent(leaf, now - recent) or not wanted <= shown

        stored = config.view.dataplanes.keys() & known.keys()
        return frozenset(name for name in stored.intersection(names) if is_lacking(name, known[name]))

    def of(self, view: MeshView) -> frozenset[str]:
        """Returns the Dataplanes of a mesh of which a certificate is stored."""
        return frozenset(self._known.get(view.name, ()))

    def _take_in(self, event: Listing | Commit) -> None:
        if isinstance(event, Listing):
            self._take_in_all(event.resources)
            return
        for change in event.changes:
            if isinstance(change, Put):
                self._put(change.resource)
            elif change.key.kind == kinds.DATAPLANE_INSIGHT.name:
                self._drop(change.key.mesh, change.key.name)

    def _take_in_all(self, resources: Iterable[AnyResource]) -> None:
        self._known = {}
        for resource in resources:
            self._put(resource)

    def _put(self, resource: AnyResource) -> None:
        if resource.key.kind != kinds.DATAPLANE_INSIGHT.name:
            return
        if resource.spec.mtls is None:
            self._drop(resource.mesh, resource.name)
        else:
            self._known.setdefault(resource.mesh, {})[resource.name] = resource.spec.mtls

    def _drop(self, mesh: str, name: str) -> None:
        some = self._known.get(mesh, {})
        some.pop(name, None)
        if not some:
            self._known.pop(mesh, None)


def _is_recent(leaf: MtlsInsight, since: datetime) -> bool:
    issued = leaf.last_certificate_regeneration
    return leaf.reason == NAMES_CHANGED and issued is not None and issued > since
