"""Counts how often Dataplanes of a mesh have got other names, so that what is open under an old name ends.

The count is a part of every filter chain, so it has to be the same at every control plane, and after a restart: another
one would have Envoys end the connections of everybody, and too small a one would leave those open that have to end. It
is kept as a label of the mesh's transition. Others say of which services that was, by their groups, so that connections
of the others go on; what an older version has counted is of everybody.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import structlog

from kuma.base.errors import Conflict, NotFound, Unavailable
from kuma.policy import caller_groups
from kuma.policy.succession import Renamed
from kuma.resources.view import MeshView
from kuma.store.protocol import Store, Update

log = structlog.get_logger(__name__)

LABEL = "kuma.io/renamed"
"""Of a MeshTransition; control planes write it, and nobody else may. These, too:"""
_APART = f"{LABEL}-apart"
_OF_GROUP = f"{LABEL}-of-"
_NONE = Counter[str]()


class Renames:
    """The counts of all meshes, as they are here, and as they are stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: dict[str, Counter[str]] = {}
        """By mesh and label."""
        self._views: dict[str, MeshView] = {}
        """Of the meshes whose count is to be stored."""

    def of(self, mesh: str) -> int:
        """Returns the count of a mesh."""
        return self._counts.get(mesh, _NONE)[LABEL]

    def apart(self, mesh: str) -> Renamed:
        """Returns which of them were of whom."""
        counts = self._counts.get(mesh, _NONE)
        of_groups = ((label.removeprefix(_OF_GROUP), n) for label, n in counts.items() if label.startswith(_OF_GROUP))
        return Renamed(counts[_APART], tuple(sorted(of_groups)))

    def take_in(self, view: MeshView) -> bool:
        """Takes up what another control plane has counted, or this one before; tells whether ours is to be stored."""
        stored = _stored(view)
        known = self._counts[view.name] = self._counts.get(view.name, _NONE) | stored
        if known != stored:
            self._views[view.name] = view
        else:
            self._views.pop(view.name, None)
        return known != stored

    def add(self, view: MeshView, services: frozenset[str] = frozenset()) -> None:
        """Counts one more: of whoever had these services, or of nobody knows whom."""
        more = Counter({f"{_OF_GROUP}{caller_groups.group((service,))}": 1 for service in services})
        more[LABEL] = 1
        if services:
            more[_APART] = 1
        self._counts[view.name] = self._counts.get(view.name, _NONE) + more
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
            labels = {**transition.labels, **{label: str(n) for label, n in self._counts.get(mesh, _NONE).items()}}
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


def _stored(view: MeshView) -> Counter[str]:
    labels = view.transition.labels if view.transition else {}
    counts = {name: text for name, text in labels.items() if name in (LABEL, _APART) or name.startswith(_OF_GROUP)}
    return Counter({name: int(text) for name, text in counts.items() if text.isdecimal() and int(text)})
