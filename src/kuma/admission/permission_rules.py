"""The rules of permissions: together they stay within what proxies can bear, and they tell what they take away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from kuma.admission import former_permissions
from kuma.base.errors import InvalidResource, Violation
from kuma.base.turns import Turns
from kuma.policy import permission_limits
from kuma.policy.absences import absences
from kuma.policy.authorization import Principal, effective
from kuma.policy.impact import Displacement, Impact
from kuma.policy.permissions import Permissions
from kuma.policy.weakening import Widening
from kuma.resources import kinds
from kuma.resources.models import mesh_traffic_permission, target_ref
from kuma.resources.models.dataplane import DataplaneSpec, Inbound
from kuma.resources.models.mesh import AUTHORITY_LABEL, AWAITED, weakening_is_refused
from kuma.resources.models.mesh_traffic_permission import EFFECT, SHADOW
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.store.manager import Decision
from kuma.store.protocol import AnyResource, Expect, ExpectAll, Operation, Store, find
from kuma.store.rehearsal import Rehearsal
from kuma.store.views import Views

_LAST = datetime.max.replace(tzinfo=UTC)
_NAMED = 5
"""How many services are warned of."""
_CALLERS = 20
"""How many callers of each are named."""
_LOOKED_AT = 50_000
"""Inbounds that are looked at for what a permission takes away: less than a second in all, in short turns."""
_Place = tuple[Resource[DataplaneSpec], Inbound]


class PermissionRules:
    """Warns when a new permission takes the place of another one, and callers lose what that one allowed."""

    def __init__(self, views: Views, turns: Turns, *, guarded: bool = False, looked_at: int = _LOOKED_AT) -> None:
        """`looked_at` is of how many inbounds it is told what callers lose there."""
        self._views = views
        self._guarded = guarded
        """Whether meshes that do not say so refuse what weakens them."""
        self._turns = turns
        self._looked_at = looked_at
        self._permissions: dict[str, Permissions] = {}
        """By mesh, as they were looked at last."""

    async def on_put(self, old: AnyResource | None, new: AnyResource, store: Store) -> Decision:
        view = self._view(new.mesh, store)
        before = _with(self._known(view, store), old)
        after = _having(before, replace(new, creation_time=old.creation_time if old else _LAST))
        refused = tuple(permission_limits.violations(before, after))
        if refused:
            raise InvalidResource(refused)
        places = ((one, inbound) for one in view.dataplanes.values() for inbound in one.spec.net.inbound)
        displaced = _displaced(islice(places, self._looked_at), Impact(before, after))
        found = [d for d in await self._turns.collect(displaced) if d is not None]
        warnings = [_warning(*each) for each in sorted(found)[:_NAMED]]
        if len(found) > _NAMED:
            warnings.append(f"the same holds for {len(found) - _NAMED} more services")
        if next(places, None) is not None:
            warnings.append(f"what callers lose was looked at for {self._looked_at:,} inbounds only, not for all")
        if new.key.kind == kinds.MESH_TRAFFIC_PERMISSION.name:
            warnings += _said_of_its_own(new)
        decision = await self._weakened(Widening(before, after, old, new), store)
        noted = await self._noted(before, after, old, new, view, store)
        absent = [a for a in await self._turns.collect(absences(new, view.dataplanes.values())) if a is not None]
        more = (f"the same holds for {len(absent) - _NAMED} more selectors",) if len(absent) > _NAMED else ()
        return replace(
            decision,
            operations=(*decision.operations, *noted),
            warnings=tuple(warnings),
            absences=(*absent[:_NAMED], *more),
        )

    async def on_delete(self, old: AnyResource, store: Store) -> Decision:
        view = self._view(old.mesh, store)
        before = _with(self._known(view, store), old)
        after = _without(before, old)
        decision = await self._weakened(Widening(before, after, old, None), store)
        noted = await self._noted(before, after, old, None, view, store)
        return replace(decision, operations=(*decision.operations, *noted))

    async def _noted(
        self,
        before: Permissions,
        after: Permissions,
        old: AnyResource | None,
        new: AnyResource | None,
        view: MeshView,
        store: Store,
    ) -> tuple[Operation, ...]:
        """Returns the operations that note what decides until leaves show what is looked at, if there are leaves."""
        changed = new or old
        assert changed is not None
        same = old is not None and new is not None and old.spec == new.spec and dict(old.labels) == dict(new.labels)
        if same or view.enabled_backend is None:
            return ()
        return await former_permissions.noted(before, after, changed.key, old, store)

    async def _weakened(self, widening: Widening, store: Store) -> Decision:
        """Returns what a change weakens. Without mutual TLS everybody is admitted, whatever permissions say."""
        changed = widening.new or widening.old
        assert changed is not None
        mesh = await find(store, kinds.MESH.key(changed.mesh))
        if mesh is None or mesh.spec.enabled_backend is None or _is_being_created(mesh):
            return Decision()
        found = [w for w in await self._turns.collect(widening.weakenings()) if w is not None]
        more = (Violation(found[0].field, f"{len(found) - _NAMED} more admissions"),) if len(found) > _NAMED else ()
        guarded = weakening_is_refused(mesh.labels, self._guarded)
        return Decision(
            (*((Expect(mesh.key, mesh.version),) if found else ()), *all_of(widening.before, changed.mesh)),
            weakens=(*found[:_NAMED], *more),
            guarded=guarded,
        )

    def permissions(self, mesh: str, store: Store) -> Permissions:
        """Returns the permissions of a mesh as they are now, or as a rehearsal has made them."""
        return self._known(self._view(mesh, store), store)

    def _view(self, mesh: str, store: Store) -> MeshView:
        """Returns a mesh as it is now, or as a rehearsal has made it."""
        view = self._views.view(mesh)
        return store.seen(view) if isinstance(store, Rehearsal) else view

    def _known(self, view: MeshView, store: Store) -> Permissions:
        before = self._permissions.get(view.name, Permissions())
        found = before.following(view.permissions, view.mesh_permissions)
        if isinstance(store, Rehearsal):  # of which nothing stays
            return found
        if view.mesh is None:
            self._permissions.pop(view.name, None)
        else:
            self._permissions[view.name] = found
        return found


def _said_of_its_own(permission: AnyResource) -> Iterator[str]:
    """Returns warnings about a MeshTrafficPermission, whatever else there is."""
    if not any(effective((permission,))):
        yield f"the label {EFFECT}: {SHADOW} keeps it from any effect: it is stored and shown only"
    foreign = list(mesh_traffic_permission.foreign_identities(permission.spec, permission.mesh))
    yield from foreign[:_NAMED]
    if len(foreign) > _NAMED:
        yield f"the same holds for {len(foreign) - _NAMED} more SPIFFE IDs"


def _displaced(places: Iterable[_Place], impact: Impact) -> Iterator[Displacement | None]:
    """Yields what happens to inbounds, each displacement once; None between, for others to have their turn."""
    seen, told, wanted = set(), set(), impact.facets
    for dataplane, inbound in places:
        facets = target_ref.facets(dataplane, inbound, wanted)
        same_inbound = frozenset(facets.items())
        displacement = None if same_inbound in seen else impact.on(facets)
        seen.add(same_inbound)
        if displacement is None:
            yield None
            continue
        service, displaced_by, lost = displacement
        same = service, displaced_by, id(lost)
        yield None if same in told else displacement
        told.add(same)


def _is_being_created(mesh: AnyResource) -> bool:
    """Tells whether a mesh has not begun: its permissions come before anybody gets a certificate."""
    return mesh.version == 1 and mesh.labels.get(AUTHORITY_LABEL) == AWAITED


def all_of(permissions: Permissions, mesh: str) -> tuple[ExpectAll, ...]:
    """Returns the checks that permissions are still those of a mesh: one may be about to come, or what denies to go."""
    return (
        ExpectAll(kinds.TRAFFIC_PERMISSION.name, mesh, tuple(permissions.legacy.values())),
        ExpectAll(kinds.MESH_TRAFFIC_PERMISSION.name, mesh, tuple(permissions.mesh.values())),
    )


def _with(permissions: Permissions, stored: AnyResource | None) -> Permissions:
    """With one as it is stored: the view may not have it yet."""
    if stored is None:
        return permissions
    some = permissions.legacy if stored.key.kind == kinds.TRAFFIC_PERMISSION.name else permissions.mesh
    seen = some.get(stored.name)
    return permissions if seen is not None and seen.version == stored.version else _having(permissions, stored)


def _without(permissions: Permissions, old: AnyResource) -> Permissions:
    def left(items: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: item for name, item in items.items() if name != old.name}

    if old.key.kind == kinds.TRAFFIC_PERMISSION.name:
        return permissions.following(left(permissions.legacy), permissions.mesh)
    return permissions.following(permissions.legacy, left(permissions.mesh))


def _having(permissions: Permissions, new: AnyResource) -> Permissions:
    def replaced(items: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**items, new.name: new}

    if new.key.kind == kinds.TRAFFIC_PERMISSION.name:
        return permissions.following(replaced(permissions.legacy), permissions.mesh)
    return permissions.following(permissions.legacy, replaced(permissions.mesh))


def _warning(service: str, displaced_by: str, lost: tuple[Principal, ...]) -> str:
    named = [" ".join(f"{name}={value}" for name, value in caller.tags) or "any caller" for caller in lost[:_CALLERS]]
    more = f" and {len(lost) - _CALLERS} more" if len(lost) > _CALLERS else ""
    return (
        f'service "{service}": this permission decides in place of "{displaced_by}" now, and refuses what that one '
        f"allowed: {', '.join(named)}{more}. Permissions do not add up; list these callers here if they should "
        "still be admitted"
    )
