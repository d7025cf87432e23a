"""Mesh views kept current from the store's watch: one writer, immutable pictures, listeners told what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from kuma.base.aio import Latest
from kuma.resources import kinds
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView
from kuma.store.protocol import Commit, Listing, Put, Store

Listener = Callable[[frozenset[str]], None]
EventListener = Callable[[Listing | Commit], None]

_REMEMBERED = 1000
"""Deleted resources, besides those of the last change."""


class Views:
    """The newest view of every mesh. A commit is taken in as a whole: nobody sees half of a transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._views: dict[str, MeshView] = {}
        self._revision: Latest[int] = Latest(-1)
        self._removed: dict[Key, tuple[datetime, int]] = {}
        """What was deleted last, as `_age` tells it: whoever waits to see it need not wait for ever."""
        self._listeners: list[Listener] = []
        self._event_listeners: list[EventListener] = []

    def view(self, mesh: str) -> MeshView:
        """Returns the mesh as it is now; an empty view if nothing of it is stored."""
        return self._views.get(mesh) or MeshView(mesh)

    @property
    def meshes(self) -> tuple[str, ...]:
        """The names of all meshes of which something is stored."""
        return tuple(self._views)

    @property
    def listed(self) -> bool:
        """Tells whether the stored resources have been seen; until then every view is empty."""
        return self._revision.value >= 0

    def on_change(self, listener: Listener) -> None:
        """Call `listener` with the names of the changed meshes after every change. It must not block."""
        self._listeners.append(listener)

    def on_event(self, listener: EventListener) -> None:
        """Call `listener` with everything that the store tells, also of kinds that no view holds. It must not block."""
        self._event_listeners.append(listener)

    def holds(self, resource: Resource[Any]) -> bool:
        """Tells whether a view has seen a resource in this version or a later one, even if it was deleted since."""
        there = self.view(_mesh_of(resource.key)).find(resource.key)
        seen = _age(there) if there is not None else self._removed.get(resource.key)
        return seen is not None and seen >= _age(resource)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()`; it is asked again after every commit."""
        while True:
            version = self._revision.version
            if self.listed and holds():
                return
            await self._revision.newer_than(version)

    async def run(self) -> None:
        """Follow the store until cancelled."""
        async for event in self._store.watch():
            self._forget_removals()
            changed = self._list(event) if isinstance(event, Listing) else self._commit(event)
            for name in changed:
                if self._views.get(name) == MeshView(name):
                    del self._views[name]
            for listener in self._listeners:
                listener(changed)
            for told in self._event_listeners:
                told(event)
            self._revision.set(event.revision)

    def _list(self, listing: Listing) -> frozenset[str]:
        """Start from a listing; what is as it was stays the very same object."""
        before, self._views = self._views, {}
        self._follow((resource.key, _same(before, resource)) for resource in listing.resources)
        for name, view in before.items():
            if self._views.get(name) == view:
                self._views[name] = view
            for dataplane in view.dataplanes.values():
                if self.view(name).find(dataplane.key) is None:
                    self._note_removal(dataplane)
        return frozenset(name for name in {*before, *self._views} if self._views.get(name) is not before.get(name))

    def _commit(self, commit: Commit) -> frozenset[str]:
        return self._follow(
            (change.resource.key, change.resource) if isinstance(change, Put) else (change.key, None)
            for change in commit.changes
        )

    def _follow(self, changes: Iterable[tuple[Key, Resource[Any] | None]]) -> frozenset[str]:
        """Take in many at once: thousands go with their mesh. Returns the meshes that are others now."""
        by_mesh: dict[str, dict[Key, Resource[Any] | None]] = {}
        for key, resource in changes:
            some = by_mesh.setdefault(_mesh_of(key), {})
            old = some.get(key) or self.view(_mesh_of(key)).find(key)
            if resource is None and old is not None:
                self._note_removal(old)
            some[key] = resource
        by_mesh.pop("", None)
        changed = set()
        for mesh, some in by_mesh.items():
            before = self.view(mesh)
            after = before.following(some)
            if after is not before:
                self._views[mesh] = after
                changed.add(mesh)
        return frozenset(changed)

    def _note_removal(self, resource: Resource[Any]) -> None:
        self._removed.pop(resource.key, None)  # so that it is the last
        self._removed[resource.key] = _age(resource)

    def _forget_removals(self) -> None:
        for key in tuple(self._removed)[:-_REMEMBERED]:
            del self._removed[key]


def _age(resource: Resource[Any]) -> tuple[datetime, int]:
    """Counts the changes of a resource, even if it is deleted and created again."""
    return resource.creation_time, resource.version


def _mesh_of(key: Key) -> str:
    return key.name if key.kind == kinds.MESH.name else key.mesh


def _same(before: dict[str, MeshView], resource: Resource[Any]) -> Resource[Any]:
    view = before.get(_mesh_of(resource.key))
    old = view.find(resource.key) if view else None
    return old if old == resource else resource
