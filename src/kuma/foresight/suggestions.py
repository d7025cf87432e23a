"""Suggests the least permissions that admit what was seen, for somebody to review. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from kuma.foresight.traffic import SeenCaller
from kuma.pki import spiffe
from kuma.resources import codec, kinds
from kuma.resources import tags as tag_rules
from kuma.resources.kinds import Kind
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView

_NAME = "seen-callers-of-"


class Suggestions(NamedTuple):
    """Permissions, and the callers that none of them can admit: they have no identity of the mesh."""

    permissions: tuple[Resource[Any], ...]
    left_out: tuple[SeenCaller, ...]


def suggested(view: MeshView, callers: Iterable[SeenCaller], kind: Kind) -> Suggestions:
    """Returns a permission of `kind` for each service that was called, for those whose calls were not refused."""
    admitted: dict[str, set[str]] = {}
    left_out = []
    for caller in callers:
        if caller.outcome == "refused":
            continue
        names = _services(view, caller)
        if names:
            admitted.setdefault(caller.service, set()).update(names)
        else:
            left_out.append(caller)
    made = tuple(_permission(view.name, service, sorted(names), kind) for service, names in sorted(admitted.items()))
    return Suggestions(made, tuple(left_out))


def _services(view: MeshView, caller: SeenCaller) -> frozenset[str]:
    """Returns the services of a caller; of plaintext while nobody encrypted, those of the proxies at its address."""
    if caller.how == "meshTls":
        shown = spiffe.tags(caller.mesh, caller.uris)
        return frozenset(value for name, value in shown if name == tag_rules.SERVICE)
    if caller.outcome != "unchecked":
        return frozenset()
    return frozenset(
        service
        for dataplane in view.dataplanes.values()
        if caller.address in (dataplane.spec.net.address, dataplane.spec.net.advertised_address)
        and any(outbound.service == caller.service for outbound in dataplane.spec.net.calls)
        for service in dataplane.spec.services
    )


def _permission(mesh: str, service: str, names: Sequence[str], kind: Kind) -> Resource[Any]:
    name = f"{_NAME}{service.lower().replace('_', '-')}"
    document: dict[str, Any] = {"type": kind.name, "mesh": mesh, "name": name}
    if kind is kinds.TRAFFIC_PERMISSION:
        document["sources"] = [{"match": {tag_rules.SERVICE: caller}} for caller in names]
        document["destinations"] = [{"match": {tag_rules.SERVICE: service}}]
    else:
        allow = [{"targetRef": {"kind": "MeshService", "name": n}, "default": {"action": "Allow"}} for n in names]
        document["spec"] = {"targetRef": {"kind": "MeshService", "name": service}, "from": allow}
    return codec.parse(document)
