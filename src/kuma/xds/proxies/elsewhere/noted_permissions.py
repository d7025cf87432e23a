"""Knows which permissions decided before a control plane began, by what was noted when they were changed."""

from __future__ import annotations

import contextlib

import structlog

from kuma.admission.former_permissions import content, prefix, restored
from kuma.base.errors import Conflict, NotFound, Unavailable
from kuma.policy.permissions import Permissions
from kuma.resources import kinds
from kuma.store.protocol import AnyResource, Delete, Expect, Store

log = structlog.get_logger(__name__)


class FormerPermissions:
    """Knows what was noted when a control plane began, and deletes what is noted of a mesh when it is over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recalled: dict[str, list[AnyResource]] = {}
        self._noted: set[str] = set()
        """Meshes of which something may be noted."""
        self._over: set[str] = set()
        """Those of which it is to be deleted."""

    async def recall(self, store: Store) -> None:
        """Takes in what is noted before anything is decided by it."""
        for note in (await store.list(kinds.CONFIG.name, name_contains=kinds.FORMER_PERMISSION)).items:
            mesh = str(content(note).get("mesh"))
            self._recalled.setdefault(mesh, []).append(note)
            self._noted.add(mesh)

    def of(self, mesh: str, permissions: Permissions) -> Permissions | None:
        """Returns the permissions that decided before those of today; None if that is not known."""
        return restored(permissions, self._recalled.get(mesh, ()))

    def begin(self, mesh: str) -> None:
        """Leaves are on their way: what is noted stays until they have come."""
        self._noted.add(mesh)
        self._over.discard(mesh)

    def end(self, mesh: str) -> None:
        """Nobody goes by what was before any more; `store` deletes what is noted of it."""
        self._recalled.pop(mesh, None)
        if mesh in self._noted:
            self._over.add(mesh)

    async def store(self) -> bool:
        """Deletes what is over; False if that has to be tried again."""
        try:
            for mesh in tuple(self._over):
                notes = (await self._store.list(kinds.CONFIG.name, name_contains=prefix(mesh))).items
                for note in notes if mesh in self._over else ():
                    with contextlib.suppress(Conflict, NotFound):  # another control plane was faster
                        await self._store.transact([Expect(note.key, note.version), Delete(note.key)])
                if mesh in self._over:
                    self._over.discard(mesh)
                    self._noted.discard(mesh)
        except Unavailable as error:
            log.warning("notes of former permissions stay for a while", reason=str(error))
            return False
        return True
