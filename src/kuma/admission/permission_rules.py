"""The rules of permissions: together they stay within what proxies can bear, and they tell what they take away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kuma.base.errors import InvalidResource
from kuma.base.turns import Turns
from kuma.policy import crowds
from kuma.policy.authorization import Principal, effective
from kuma.policy.impact import Displacement, Impact
from kuma.policy.permissions import Permissions
from kuma.resources import kinds
from kuma.resources.mesh_traffic_permission import EFFECT, SHADOW
from kuma.resources.view import MeshView
from kuma.store.manager import Decision
from kuma.store.protocol import AnyResource, Store
from kuma.store.views import Views

_LAST = datetime.max.replace(tzinfo=UTC)
_NAMED = 5
"""How many services are warned of."""
_CALLERS = 20
"""How many callers of each are named."""


class PermissionRules:
    """Warns when a new permission takes the place of another one, and callers lose what that one allowed."""

    def __init__(self, views: Views, turns: Turns) -> None:
        self._views = views
        self._turns = turns
        self._permissions: dict[str, Permissions] = {}
        """By mesh, as they were looked at last."""

    async def on_put(self, old: AnyResource | None, new: AnyResource, store: Store) -> Decision:
        view = self._views.view(new.mesh)
        before = self._known(view)
        after = _having(before, replace(new, creation_time=old.creation_time if old else _LAST))
        refused = tuple(crowds.violations(before, after))
        if refused:
            raise InvalidResource(refused)
        found = {d for d in await self._turns.collect(_displaced(view, Impact(before, after))) if d is not None}
        warnings = [_warning(*each) for each in sorted(found)[:_NAMED]]
        if len(found) > _NAMED:
            warnings.append(f"the same holds for {len(found) - _NAMED} more services")
        if new.key.kind == kinds.MESH_TRAFFIC_PERMISSION.name and not any(effective((new,))):
            warnings.append(f"the label {EFFECT}: {SHADOW} keeps it from any effect: it is stored and shown only")
        return Decision(warnings=tuple(warnings))

    async def on_delete(self, old: AnyResource, store: Store) -> Decision:
        return Decision()

    def _known(self, view: MeshView) -> Permissions:
        before = self._permissions.get(view.name, Permissions())
        found = before.following(view.permissions, view.mesh_permissions)
        if view.mesh is None:
            self._permissions.pop(view.name, None)
        else:
            self._permissions[view.name] = found
        return found


def _displaced(view: MeshView, impact: Impact) -> Iterator[Displacement | None]:
    """What happens to each inbound; None for one whose callers lose nothing, and for one like another."""
    seen = set()
    for dataplane in view.dataplanes.values():
        for inbound in dataplane.spec.net.inbound:
            tags = frozenset(inbound.tags.items())
            yield None if tags in seen else impact.on(inbound.tags)
            seen.add(tags)


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
