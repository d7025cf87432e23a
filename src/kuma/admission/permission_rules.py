"""Rules for changes of permissions: every change is allowed, but callers that lose access are named in a warning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kuma.policy.authorization import Permissions, Principal, effective
from kuma.policy.impact import displaced
from kuma.resources import kinds
from kuma.resources.mesh_traffic_permission import EFFECT, SHADOW
from kuma.store.manager import Decision
from kuma.store.protocol import AnyResource, Store

_LAST = datetime.max.replace(tzinfo=UTC)
_NAMED = 5
"""How many services are warned of."""


class PermissionRules:
    """Warns when a new permission displaces another one, so that callers lose what that one allowed."""

    async def on_put(self, old: AnyResource | None, new: AnyResource, store: Store) -> Decision:
        before = await _permissions(new.mesh, store)
        page = await store.list(kinds.DATAPLANE.name, new.mesh)
        stored = replace(new, creation_time=old.creation_time if old else _LAST)
        inbounds = (inbound.tags for dataplane in page.items for inbound in dataplane.spec.networking.inbound)
        found = sorted(displaced(before, _having(before, stored), inbounds))
        warnings = [_warning(*each) for each in found[:_NAMED]]
        if len(found) > _NAMED:
            warnings.append(f"the same holds for {len(found) - _NAMED} more services")
        if new.key.kind == kinds.MESH_TRAFFIC_PERMISSION.name and not any(effective((new,))):
            warnings.append(f"the label {EFFECT}: {SHADOW} keeps it from any effect: it is stored and shown only")
        return Decision(warnings=tuple(warnings))

    async def on_delete(self, old: AnyResource, store: Store) -> Decision:
        return Decision()


async def _permissions(mesh: str, store: Store) -> Permissions:
    legacy = await store.list(kinds.TRAFFIC_PERMISSION.name, mesh)
    return Permissions(legacy.items, (await store.list(kinds.MESH_TRAFFIC_PERMISSION.name, mesh)).items)


def _having(permissions: Permissions, new: AnyResource) -> Permissions:
    def replaced(items: Iterable[Any]) -> tuple[Any, ...]:
        return (*(item for item in items if item.key != new.key), new)

    if new.key.kind == kinds.TRAFFIC_PERMISSION.name:
        return Permissions(replaced(permissions.legacy), permissions.mesh)
    return Permissions(permissions.legacy, replaced(permissions.mesh))


def _warning(service: str, displaced_by: str, lost: tuple[Principal, ...]) -> str:
    callers = ", ".join(" ".join(f"{name}={value}" for name, value in caller.tags) or "any caller" for caller in lost)
    return (
        f'service "{service}": this permission decides in place of "{displaced_by}" now, and refuses what that one '
        f"allowed: {callers}. Permissions do not add up; list these callers here if they should still be admitted"
    )
