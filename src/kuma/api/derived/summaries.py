"""Derives summaries from the resources of a mesh. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kuma.policy.authorization import MeshPermission, Permission, effective
from kuma.policy.matching import match
from kuma.policy.permissions import Permissions
from kuma.resources import codec, kinds
from kuma.resources import tags as tag_rules
from kuma.resources.models import target_ref
from kuma.resources.models.dataplane import DataplaneSpec, Inbound, Networking, listen_address, workload
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec
from kuma.resources.models.mesh_traffic_permission import ALLOW, DENY, SHADOW_DENY
from kuma.resources.resource import Resource

Dataplanes = Sequence[tuple[Resource[DataplaneSpec], DataplaneInsightSpec | None]]
POLICIES = (kinds.TRAFFIC_PERMISSION, kinds.MESH_TRAFFIC_PERMISSION)
"""The kinds that the original calls policies."""


def status(dataplane: DataplaneSpec, insight: DataplaneInsightSpec | None) -> str:
    """`online`, `offline` or `partially_degraded`, as the original's clients count."""
    if insight is None or not insight.online:
        return "offline"
    if dataplane.net.gateway is not None:
        return "online"
    ready = [inbound.is_ready for inbound in dataplane.net.inbound]
    if not any(ready):
        return "offline"
    return "online" if all(ready) else "partially_degraded"


def gateway_type(dataplane: DataplaneSpec) -> str:
    """`DELEGATED` or `BUILTIN`; empty for a proxy beside a service."""
    return dataplane.net.gateway.type if dataplane.net.gateway else ""


def _counts(statuses: Iterable[str]) -> dict[str, int]:
    """Leaves out what is zero, as the original does."""
    found = Counter(statuses)
    names = (("online", "online"), ("offline", "offline"), ("partiallyDegraded", "partially_degraded"))
    counts = {name: found[key] for name, key in names if found[key]}
    return {"total": found.total(), **counts} if found else {}


def mesh_insight(mesh: Resource[Any], dataplanes: Dataplanes, policies: Mapping[str, int]) -> dict[str, Any]:
    """Returns the MeshInsight of a mesh: how many proxies and policies, and which certificates they have."""
    with_status = [(insight, status(dataplane.spec, insight)) for dataplane, insight in dataplanes]
    issued: dict[str, list[str]] = {}
    supported: dict[str, list[str]] = {}
    versions: dict[str, dict[str, list[str]]] = {"kumaDp": {}, "envoy": {}}
    for insight, found in with_status:
        if insight is None:
            continue
        if insight.mtls is not None:
            issued.setdefault(insight.mtls.issued_backend, []).append(found)
            for backend in insight.mtls.supported_backends:
                supported.setdefault(backend, []).append(found)
        if insight.subscriptions:
            version = insight.subscriptions[-1].version
            versions["kumaDp"].setdefault(version.kuma_dp.version, []).append(found)
            versions["envoy"].setdefault(version.envoy.version, []).append(found)
    services = {name for dataplane, _ in dataplanes for name in dataplane.spec.services}
    statuses = _counts(found for _, found in with_status)

    def of_type(*types: str) -> dict[str, int]:
        return _counts(status(d.spec, insight) for d, insight in dataplanes if gateway_type(d.spec) in types)

    return {
        **codec.meta(mesh),
        "type": "MeshInsight",
        "dataplanes": statuses,
        "policies": {name: {"total": total} for name, total in policies.items() if total},
        "dpVersions": {part: _each(found) for part, found in versions.items()},
        "mTLS": {"issuedBackends": _each(issued), "supportedBackends": _each(supported)},
        "services": {"total": len(services), "internal": len(services)} if services else {},
        "dataplanesByType": {
            "standard": of_type(""),
            "gateway": of_type("DELEGATED", "BUILTIN"),
            "gatewayBuiltin": of_type("BUILTIN"),
            "gatewayDelegated": of_type("DELEGATED"),
        },
    }


def _each(statuses: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    return {name: _counts(found) for name, found in sorted(statuses.items())}


def service_insights(mesh: Resource[Any], dataplanes: Dataplanes) -> list[dict[str, Any]]:
    """Returns one ServiceInsight for every service of a mesh, by name."""
    found: dict[str, list[str]] = {}
    issued: dict[str, Counter[str]] = {}
    zones: dict[str, set[str]] = {}
    gateways: dict[str, str] = {}
    for dataplane, insight in dataplanes:
        for tags in dataplane.spec.net.tag_sets:
            zones.setdefault(tags[tag_rules.SERVICE], set()).add(tags[tag_rules.ZONE])
        if dataplane.spec.net.gateway is not None:
            gateways[dataplane.spec.net.gateway.service] = f"gateway_{gateway_type(dataplane.spec).lower()}"
        for service in dataplane.spec.services:
            found.setdefault(service, []).append(status(dataplane.spec, insight))
            backends = issued.setdefault(service, Counter())
            if insight is not None and insight.mtls is not None:
                backends[insight.mtls.issued_backend] += 1
    meta = codec.meta(mesh)
    return [
        {
            **meta,
            "type": "ServiceInsight",
            "mesh": mesh.name,
            "name": service,
            "status": _service_status(statuses),
            "dataplanes": _counts(statuses),
            "issuedBackends": dict(issued[service]),
            "addressPort": f"{service}.mesh:80",  # the name that the original's DNS gives to it
            "zones": sorted(zones[service]),
            **({"serviceType": gateways[service]} if service in gateways else {}),
        }
        for service, statuses in sorted(found.items())
    ]


def _service_status(statuses: Sequence[str]) -> str:
    if all(found == "online" for found in statuses):
        return "online"
    return "offline" if all(found == "offline" for found in statuses) else "partially_degraded"


def rules(dataplane: Resource[DataplaneSpec], permissions: Permissions) -> list[dict[str, Any]]:
    """Returns what MeshTrafficPermissions say about a Dataplane, inbound by inbound, refusals first: they override."""
    by_tags, by_identity = [], []
    for inbound, known_by in _inbounds(dataplane):
        acting = [p for p in effective(permissions.mesh.values()) if _targets(p, known_by)]
        place = {"inbound": {"tags": dict(inbound.known_tags), "port": inbound.port}}
        if any(permission.spec.from_ for permission in acting):
            by_tags.append({**place, "rules": _said(acting)})
        identities = [
            {"conf": [rule.default.to_wire()], "origin": [{"resourceMeta": codec.meta(p), "ruleIndex": index}]}
            for p in acting
            for index, rule in enumerate(p.spec.rules)
        ]
        if identities:
            by_identity.append({**place, "rules": identities})
    if not by_tags and not by_identity:
        return []
    none: dict[str, Any] = {"toRules": [], "toResourceRules": [], "warnings": []}
    return [{"type": kinds.MESH_TRAFFIC_PERMISSION.name, "fromRules": by_tags, "inboundRules": by_identity, **none}]


def _said(permissions: Sequence[MeshPermission]) -> list[dict[str, Any]]:
    """Returns the callers that permissions name by tags, with the action for each, and who says so."""
    origins: dict[tuple[int, tuple[tuple[str, str], ...]], list[MeshPermission]] = {}
    for permission in permissions:
        for item in permission.spec.from_:
            key = _ORDER.index(item.default.action), tuple(sorted(item.target_ref.selected.items()))
            origins.setdefault(key, []).append(permission)
    return [
        {
            "matchers": [{"key": name, "value": value, "not": False} for name, value in caller],
            "conf": {"action": _ORDER[action]},
            "origin": [codec.meta(permission) for permission in found],
        }
        for (action, caller), found in sorted(origins.items(), key=lambda pair: pair[0])
    ]


_ORDER = (DENY, SHADOW_DENY, ALLOW)


def attachment_name(networking: Networking, inbound: Inbound) -> str:
    """Returns an inbound as the original names it: `address:port:workload port`."""
    return f"{listen_address(networking, inbound)}:{inbound.port}:{workload(networking, inbound)[1]}"


def matched_policies(dataplane: Resource[DataplaneSpec], permissions: Permissions) -> list[dict[str, Any]]:
    """Returns the permissions that act on a Dataplane, by what they are attached to."""
    items: list[dict[str, Any]] = []
    of_mesh = [
        p for p in permissions.mesh.values() if any(_targets(p, known_by) for _, known_by in _inbounds(dataplane))
    ]
    if of_mesh:
        matched = {kinds.MESH_TRAFFIC_PERMISSION.name: [codec.meta(p) for p in of_mesh]}
        items.append({"type": "dataplane", "matchedPolicies": matched})
    for inbound, known_by in _inbounds(dataplane):
        winner = _winner(permissions, known_by)
        if winner is not None:
            matched = {kinds.TRAFFIC_PERMISSION.name: [codec.meta(winner)]}
            items.append({**_attachment(dataplane.spec, inbound), "matchedPolicies": matched})
    return items


def affected(
    policy: Resource[Any], dataplane: Resource[DataplaneSpec], permissions: Permissions
) -> list[dict[str, Any]]:
    """Returns the parts of a Dataplane that a permission acts on."""
    if policy.key.kind == kinds.MESH_TRAFFIC_PERMISSION.name:
        targeted = any(_targets(policy, known_by) for _, known_by in _inbounds(dataplane))
        return [{"type": "dataplane"}] if targeted else []
    return [
        _attachment(dataplane.spec, inbound)
        for inbound, known_by in _inbounds(dataplane)
        if (winner := _winner(permissions, known_by)) is not None and winner.key == policy.key
    ]


def _attachment(dataplane: DataplaneSpec, inbound: Inbound) -> dict[str, Any]:
    return {"type": "inbound", "name": attachment_name(dataplane.net, inbound), "service": inbound.service}


def _inbounds(dataplane: Resource[DataplaneSpec]) -> Iterator[tuple[Inbound, Mapping[str, str]]]:
    """Yields the inbounds, each with all that it is known by."""
    return ((inbound, target_ref.facets(dataplane, inbound)) for inbound in dataplane.spec.net.inbound)


def _targets(permission: MeshPermission, known_by: Mapping[str, str]) -> bool:
    return match(permission.spec.selected, known_by) is not None


def _winner(permissions: Permissions, known_by: Mapping[str, str]) -> Permission | None:
    """Returns the TrafficPermission that decides who may call an inbound, if one does."""
    return permissions.legacy.get(permissions.admission(target_ref.apart(known_by)[0]).permission)
