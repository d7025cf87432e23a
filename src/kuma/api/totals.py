"""Counts the resources and proxies of all meshes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from kuma.api.derived import summaries
from kuma.api.derived.summaries import POLICIES, Dataplanes
from kuma.resources import codec, kinds
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec
from kuma.resources.resource import NEVER, Resource
from kuma.store.manager import ResourceManager

_STATUSES = {"online": "online", "offline": "offline", "partially_degraded": "partiallyDegraded"}


async def global_insight(manager: ResourceManager, now: datetime) -> dict[str, Any]:
    """Returns the original's GlobalInsight. There is one zone, and no external services: their number is zero."""
    insights = {i.key: i.spec for i in (await manager.list(kinds.DATAPLANE_INSIGHT.name)).items}
    dataplanes = (await manager.list(kinds.DATAPLANE.name)).items
    pairs = [(d, insights.get(kinds.DATAPLANE_INSIGHT.key(d.name, d.mesh))) for d in dataplanes]
    meshes = (await manager.list(kinds.MESH.name)).items
    statuses, services = await asyncio.to_thread(_statuses, meshes, pairs)
    none, policies = _counted(()), [await _total(manager, kind.name) for kind in POLICIES]
    return {
        "createdAt": codec.rfc3339(now),
        "dataplanes": {
            "standard": statuses[""],
            "gatewayBuiltin": statuses["BUILTIN"],
            "gatewayDelegated": statuses["DELEGATED"],
        },
        "meshes": {"total": len(meshes)},
        "policies": {"total": sum(policies)},
        "resources": {kind.name: {"total": await _total(manager, kind.name)} for kind in kinds.ALL},
        "services": {
            "internal": services,
            "external": {"total": 0},
            "gatewayBuiltin": none,
            "gatewayDelegated": none,
        },
        "zones": {
            "controlPlanes": {"online": 1, "total": 1},
            "zoneEgresses": {"online": 0, "total": 0},
            "zoneIngresses": {"online": 0, "total": 0},
        },
    }


def _statuses(meshes: Sequence[Resource[Any]], pairs: Dataplanes) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Counts Dataplanes and services by their status."""
    of_mesh: dict[str, list[tuple[Resource[DataplaneSpec], DataplaneInsightSpec | None]]] = {}
    for pair in pairs:
        of_mesh.setdefault(pair[0].mesh, []).append(pair)
    services = (s for mesh in meshes for s in summaries.service_insights(mesh, of_mesh.get(mesh.name, ())))
    by_type: dict[str, list[str]] = {"": [], "BUILTIN": [], "DELEGATED": []}
    for dataplane, insight in pairs:
        by_type[summaries.gateway_type(dataplane.spec)].append(summaries.status(dataplane.spec, insight))
    return {kind: _counted(found) for kind, found in by_type.items()}, _counted(
        service["status"] for service in services
    )


async def global_insights(manager: ResourceManager) -> dict[str, Any]:
    """Returns the original's older form: the kinds that belong to no mesh."""
    totals = {kind.name: await _total(manager, kind.name) for kind in (kinds.GLOBAL_SECRET, kinds.MESH)}
    whole = {**totals, "Zone": 1, "ZoneEgress": 0, "ZoneIngress": 0}
    return {
        "type": "GlobalInsights",
        "creationTime": codec.rfc3339(NEVER),
        "resources": {name: {"total": total} for name, total in whole.items()},
    }


async def _total(manager: ResourceManager, kind: str) -> int:
    return (await manager.list(kind, limit=1)).total


def _counted(statuses: Iterable[str]) -> dict[str, int]:
    found = Counter(statuses)
    return {**{shown: found[name] for name, shown in _STATUSES.items()}, "total": found.total()}
