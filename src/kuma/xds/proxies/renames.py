"""Counts how often Dataplanes of a mesh have got other names, so that what is open under an old name ends.

The count is a part of every filter chain, so it has to be the same at every control plane, and after a restart: another
one would have Envoys end the connections of everybody, and too small a one would leave those open that have to end. It
is kept as a label of the mesh's transition.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from kuma.base.errors import Conflict, NotFound, Unavailable
from kuma.resources.view import MeshView
from kuma.store.protocol import Store, Update

log = structlog.get_logger(__name__)

LABEL = "kuma.io/renamed"
"""Of a MeshTransition; control planes write it, and nobody else may."""


class Renames:
    """The counts of all meshes, as they are here, and as they are stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: dict[str, int] = {}
        self._views: dict[str, MeshView] = {}
        """Of the meshes whose count is to be stored."""

    def of(self, mesh: str) -> int:
        """Returns the count of a mesh."""
        return self._counts.get(mesh, 0)

    def take_in(self, view: MeshView) -> bool:
        """Takes up what another control plane has counted, or this one before; tells whether ours is to be stored."""
        ours, stored = self.of(view.name), _stored(view)
        if stored > ours:
            self._counts[view.name] = stored
        if stored < ours:
            self._views[view.name] = view
        else:
            self._views.pop(view.name, None)
        return stored < ours

    def add(self, view: MeshView) -> None:
        """Counts one more."""
        self._counts[view.name] = self.of(view.name) + 1
        self._views[view.name] = view

    def forget(self, mesh: str) -> None:
        """Forgets a mesh that has gone."""
        self._counts.pop(mesh, None)
        self._views.pop(mesh, None)

    async def store(self) -> bool:
        """Stores what is not stored yet; False if that has to be tried again. Where others were faster, a view says."""
        done = True
        for mesh, view in tuple(self._views.items()):
            transition = view.transition
            if transition is None:
                continue  # nobody has a certificate, and there is nothing to end
            labels = {**transition.labels, LABEL: str(self.of(mesh))}
            try:
                await self._store.transact([Update(replace(transition, labels=labels))])
            except (Conflict, NotFound):
                pass
            except Unavailable as error:
                log.error("a restart would end connections that may go on", mesh=mesh, reason=str(error))
                done = False
                continue
            if self._views.get(mesh) is view:
                del self._views[mesh]
        return done


def _stored(view: MeshView) -> int:
    text = view.transition.labels.get(LABEL, "") if view.transition else ""
    return int(text) if text.isdecimal() else 0
