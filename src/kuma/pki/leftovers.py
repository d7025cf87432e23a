"""Removes the Secrets of builtin authorities that a Mesh no longer lists, once nothing live depends on them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog

from kuma.base.errors import Conflict, NotFound
from kuma.pki import builtin
from kuma.resources import kinds
from kuma.resources.view import MeshView
from kuma.store.protocol import Delete, Expect, Store
from kuma.store.views import Views

log = structlog.get_logger(__name__)


class Leftovers:
    """Looks when a mesh has changed. A name that is listed again later gets a new root."""

    def __init__(self, store: Store, views: Views) -> None:
        self._store = store
        self._views = views
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        views.on_change(self._look_at)

    def _look_at(self, meshes: frozenset[str]) -> None:
        self._changed |= meshes
        self._wake.set()

    async def run(self) -> None:
        """Remove until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, set()
            for mesh in sorted(changed):
                await self._clean(self._views.view(mesh))

    async def _clean(self, view: MeshView) -> None:
        if view.mesh is None or view.transition is None or not view.transition.spec.complete:
            return  # somebody may still run what an old authority has issued
        names = tuple(_unlisted(view))
        if not names:
            return
        guards = [Expect(found.key, found.version) for found in (view.mesh, view.transition)]
        try:
            await self._store.transact([*guards, *(Delete(kinds.SECRET.key(name, view.name)) for name in names)])
        except (Conflict, NotFound):
            return  # what has changed meanwhile makes us look again
        log.info("secrets of removed authorities deleted", mesh=view.name, secrets=names)


def _unlisted(view: MeshView) -> Iterator[str]:
    """The Secrets of builtin authorities of this mesh that are not listed."""
    mtls = view.mesh.spec.mtls if view.mesh else None
    listed = {
        name
        for backend in (mtls.backends if mtls else ())
        if backend.type == "builtin"
        for name in builtin.secret_names(view.name, backend.name)
    }
    made = builtin.secret_names(view.name, "")
    yield from (name for name in sorted(view.secrets) if name.startswith(made) and name not in listed)
