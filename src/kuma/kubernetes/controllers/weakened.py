"""Tells whom the permissions of a mesh let in that were not before, once they are stored: whoever has changed them.

A webhook judges each change with `kubectl` by what is stored before it, and the API server stores both of two that come
at once: together they may let in whom neither of them would. So what has come is judged again, as if one change had
come after the other. Nothing is taken back: the mesh has what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import structlog

from kuma.base import aio
from kuma.base.audit import Audit
from kuma.base.turns import Turns
from kuma.kubernetes.controllers.due import Due
from kuma.kubernetes.metrics import Metrics
from kuma.policy.permissions import Permissions
from kuma.policy.weakening import Widening
from kuma.resources import kinds
from kuma.resources.models.mesh import weakening_is_refused
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView, Named, changed_names
from kuma.store.views import Views

log = structlog.get_logger(__name__)

_RETRY = aio.Backoff(first=0.5, last=30.0)
_TOLD = 5
"""What is told of each permission."""
_Change = tuple[Resource[Any] | None, Resource[Any] | None]


class _Seen(NamedTuple):
    permissions: Permissions
    has_mutual_tls: bool


class WeakenedPermissions:
    """Looks at the permissions of a mesh whenever they have changed."""

    def __init__(self, views: Views, metrics: Metrics, audit: Audit, *, guarded: bool) -> None:
        """`guarded` is whether meshes that do not say so refuse what weakens them."""
        self._views = views
        self._metrics = metrics
        self._audit = audit
        self._guarded = guarded
        self._turns = Turns()
        self._due = Due[str](_RETRY)
        self._seen: dict[str, _Seen] = {}
        views.on_change(self._due.add)

    async def run(self) -> None:
        """Tell until cancelled, of what changes from now on."""
        await self._views.until(lambda: True)
        for name in self._views.meshes:
            self._take_note(self._views.view(name))
        while True:
            for name in sorted(await self._due.taken()):
                try:
                    await self._look(self._views.view(name))
                except Exception:  # whatever it is, it is this mesh's: the others go on
                    self._metrics.controller_failures.labels("weakened permissions").inc()
                    log.exception("it is not known whom the permissions of a mesh have let in", mesh=name)

    async def _look(self, view: MeshView) -> None:
        before, now = self._seen.get(view.name), self._take_note(view)
        if before is None or before.permissions is now.permissions:
            return
        if view.mesh is None or not (before.has_mutual_tls and now.has_mutual_tls):
            return  # without mutual TLS everybody is admitted, whatever permissions say
        is_guarded = weakening_is_refused(view.mesh.labels, self._guarded)
        for key, widening in _one_after_the_other(before.permissions, now.permissions):
            found = [str(one) for one in await self._turns.collect(widening.weakenings()) if one is not None]
            if found:
                self._tell(key, found, is_guarded=is_guarded)

    def _take_note(self, view: MeshView) -> _Seen:
        """Returns what there is, and keeps it for the next time."""
        before = self._seen.get(view.name)
        known = before.permissions if before else Permissions()
        permissions = known.following(view.permissions, view.mesh_permissions)
        self._seen[view.name] = now = _Seen(permissions, view.enabled_backend is not None)
        if view.mesh is None:
            del self._seen[view.name]
        return now

    def _tell(self, key: Key, found: list[str], *, is_guarded: bool) -> None:
        self._metrics.weakened.inc()
        told = [*found[:_TOLD], *([f"{len(found) - _TOLD} more admissions"] if len(found) > _TOLD else ())]
        log.warning(
            "a mesh has been weakened, by this change or by several at once",
            kind=key.kind, mesh=key.mesh, name=key.name, weakens=told, guarded=is_guarded,
        )  # fmt: skip
        self._audit.record("weakened", type=key.kind, mesh=key.mesh, name=key.name, weakens=told, guarded=is_guarded)


def _one_after_the_other(before: Permissions, after: Permissions) -> Iterator[tuple[Key, Widening]]:
    """Yields each change as if the others had come before or after it.

    Deletions are last: whom a denial has kept out is let in by its end then, and not by whoever admits everybody else.
    """
    changes = (*_changes(before.legacy, after.legacy), *_changes(before.mesh, after.mesh))
    for old, new in sorted(changes, key=lambda change: (change[1] is None, change[0] is not None)):
        changed = new or old
        assert changed is not None
        legacy, mesh = before.legacy, before.mesh
        if changed.key.kind == kinds.TRAFFIC_PERMISSION.name:
            legacy = Named(legacy, {changed.name: new})
        else:
            mesh = Named(mesh, {changed.name: new})
        now = before.following(legacy, mesh)
        yield changed.key, Widening(before, now, old, new)
        before = now


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[_Change]:
    for name in sorted(changed_names(before, after)):
        yield before.get(name), after.get(name)
