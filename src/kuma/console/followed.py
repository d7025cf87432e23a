"""Keeps what is known of proxies, as the store tells it commit by commit: pages read nothing from the store for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from kuma.base.aio import Latest
from kuma.foresight.course import Insights
from kuma.resources import kinds
from kuma.resources.models.observed_traffic import ObservedTrafficSpec
from kuma.resources.resource import Key, Model
from kuma.store.protocol import AnyResource, Commit, Listing, Put
from kuma.store.views import Views

_KEPT = (kinds.DATAPLANE_INSIGHT.name, kinds.OBSERVED_TRAFFIC.name)
_SHOWN = frozenset(
    kind.name
    for kind in (
        kinds.MESH,
        kinds.MESH_TRANSITION,
        kinds.DATAPLANE,
        kinds.DATAPLANE_INSIGHT,
        kinds.TRAFFIC_PERMISSION,
        kinds.MESH_TRAFFIC_PERMISSION,
        kinds.SECRET,
        kinds.OBSERVED_TRAFFIC,
    )
)
"""Kinds whose changes are told to open pages."""
EVERY_MESH = ""


class Followed:
    """What proxies are known by, and how often the resources of each mesh have changed since this process began."""

    def __init__(self, views: Views) -> None:
        self._specs: dict[tuple[str, str], dict[str, Model]] = {}
        self._changes = Counter[str]()
        self._latest: Latest[None] = Latest(None)
        views.on_event(self._take_in)

    def insights(self, mesh: str) -> Insights:
        """Returns what is known of the proxies of a mesh, by the names of their Dataplanes."""
        return self._of(kinds.DATAPLANE_INSIGHT.name, mesh)  # type: ignore[return-value]

    def observed(self, mesh: str) -> Mapping[str, ObservedTrafficSpec]:
        """Returns what is stored of who has called the Dataplanes of a mesh."""
        return self._of(kinds.OBSERVED_TRAFFIC.name, mesh)  # type: ignore[return-value]

    def changes(self, mesh: str = EVERY_MESH) -> int:
        """Counts the commits that concern a mesh, or any."""
        return self._changes[mesh]

    async def more_than(self, seen: int, mesh: str = EVERY_MESH) -> int:
        """Returns the count of changes once it is another than `seen`."""
        while (count := self._changes[mesh]) == seen:
            await self._latest.newer_than(self._latest.version)
        return count

    def _of(self, kind: str, mesh: str) -> Mapping[str, Model]:
        return MappingProxyType(dict(self._specs.get((kind, mesh), {})))

    def _take_in(self, event: Listing | Commit) -> None:
        if isinstance(event, Listing):
            before = set(self._specs)
            self._specs = {}
            meshes = {self._put(resource) for resource in event.resources} | {mesh for _, mesh in before}
        else:
            meshes = {self._put(c.resource) if isinstance(c, Put) else self._drop(c.key) for c in event.changes}
        self._count(mesh for mesh in meshes if mesh)

    def _put(self, resource: AnyResource) -> str:
        """Takes a resource in; returns the mesh that is shown otherwise now, if one is."""
        key = resource.key
        if key.kind in _KEPT:
            self._specs.setdefault((key.kind, key.mesh), {})[key.name] = resource.spec
        return _concerned(key)

    def _drop(self, key: Key) -> str:
        some = self._specs.get((key.kind, key.mesh))
        if some is not None:
            some.pop(key.name, None)
            if not some:
                del self._specs[key.kind, key.mesh]
        return _concerned(key)

    def _count(self, meshes: Iterable[str]) -> None:
        found = set(meshes)
        if found:
            self._changes.update([EVERY_MESH, *found])
            self._latest.set(None)


def _concerned(key: Key) -> str:
    if key.kind not in _SHOWN:
        return ""
    return key.name if key.kind == kinds.MESH.name else key.mesh
