"""Counts the resources and proxies of all meshes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from kuma.api.derived import summaries
from kuma.api.derived.summaries import POLICIES
from kuma.resources import codec, kinds
from kuma.resources.resource import NEVER
from kuma.store.manager import ResourceManager

_STATUSES = {"online": "online", "offline": "offline", "partially_degraded": "partiallyDegraded"}
_ZONES = ("controlPlanes", "zoneEgresses", "zoneIngresses")


async def global_insight(manager: ResourceManager, now: datetime) -> dict[str, Any]:
    """The original's GlobalInsight. There are no zones or external services here: their numbers are zero."""
    insights = {i.key: i.spec for i in (await manager.list(kinds.DATAPLANE_INSIGHT.name)).items}
    dataplanes = (await manager.list(kinds.DATAPLANE.name)).items
    pairs = [(d, insights.get(kinds.DATAPLANE_INSIGHT.key(d.name, d.mesh))) for d in dataplanes]
    meshes = (await manager.list(kinds.MESH.name)).items
    services = [
        service["status"]
        for mesh in meshes
        for service in summaries.service_insights(mesh, [pair for pair in pairs if pair[0].mesh == mesh.name])
    ]

    def of_type(kind: str) -> dict[str, int]:
        return _counted(summaries.status(d.spec, i) for d, i in pairs if summaries.gateway_type(d.spec) == kind)

    none, policies = _counted(()), [await _total(manager, kind.name) for kind in POLICIES]
    return {
        "createdAt": codec.rfc3339(now),
        "dataplanes": {
            "standard": of_type(""),
            "gatewayBuiltin": of_type("BUILTIN"),
            "gatewayDelegated": of_type("DELEGATED"),
        },
        "meshes": {"total": len(meshes)},
        "policies": {"total": sum(policies)},
        "resources": {kind.name: {"total": await _total(manager, kind.name)} for kind in kinds.ALL},
        "services": {
            "internal": _counted(services),
            "external": {"total": 0},
            "gatewayBuiltin": none,
            "gatewayDelegated": none,
        },
        "zones": {name: {"online": 0, "total": 0} for name in _ZONES},
    }


async def global_insights(manager: ResourceManager) -> dict[str, Any]:
    """The original's older form: the kinds that belong to no mesh."""
    totals = {kind.name: await _total(manager, kind.name) for kind in (kinds.GLOBAL_SECRET, kinds.MESH)}
    whole = {**totals, "Zone": 0, "ZoneEgress": 0, "ZoneIngress": 0}
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
