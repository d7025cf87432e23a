"""Routes about the kinds of resources: which there are, which of them are policies, and how many resources of each."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from kuma.api import instances, totals
from kuma.api.context import ApiContext
from kuma.api.derived.summaries import POLICIES
from kuma.api.http.bodies import json_answer
from kuma.api.routes.late_route import LateRoute
from kuma.resources import kinds
from kuma.resources.kinds import DATAPLANE, Kind

_UNKNOWN_TO_CLIENTS = {"MeshTransition", "MeshExternalService", "MeshMultiZoneService"}
"""Kinds that kumactl 2.7 does not have: it ends with an error when it is told of one."""


def routes(context: ApiContext) -> APIRouter:
    """Returns all of these routes. They need the right to read Dataplanes."""
    router = APIRouter(tags=["Control plane"], route_class=LateRoute)

    @router.get("/_resources", summary="The kinds of resources")
    async def all_kinds(request: Request) -> Response:
        context.check(request, DATAPLANE)
        known = sorted(kinds.ALL, key=lambda kind: kind.name)
        return json_answer({"resources": [_kind(kind) for kind in known if kind.name not in _UNKNOWN_TO_CLIENTS]})

    @router.get("/policies", summary="The kinds that are policies")
    async def policies(request: Request) -> Response:
        context.check(request, DATAPLANE)
        return json_answer({"policies": [_policy(kind) for kind in sorted(POLICIES, key=lambda kind: kind.name)]})

    @router.get("/global-insight", summary="How much of everything there is, in all meshes")
    async def global_insight(request: Request) -> Response:
        context.check(request, DATAPLANE)
        async with context.costly.turn():
            found = await totals.global_insight(context.manager, context.clock.now())
        return json_answer({**found, "controlPlanes": instances.all_shown(context)})

    @router.get("/global-insights", summary="How many resources there are of the kinds that belong to no mesh")
    async def global_insights(request: Request) -> Response:
        context.check(request, DATAPLANE)
        return json_answer(await totals.global_insights(context.manager))

    return router


def _kind(kind: Kind) -> dict[str, Any]:
    """Formats a kind as the original's client needs it; that client knows no kind that the original does not have."""
    found: dict[str, Any] = {
        "includeInFederation": kind not in (DATAPLANE, kinds.DATAPLANE_INSIGHT),
        "name": kind.name,
        "path": kind.path,
        "pluralDisplayName": _plural(kind),
        "readOnly": kind.read_only,
        "scope": kind.scope,
        "singularDisplayName": _spaced(kind.name),
    }
    if kind in POLICIES:
        found["policy"] = {"hasFromTargetRef": kind.nested, "hasToTargetRef": False, "isTargetRef": kind.nested}
    return found


def _policy(kind: Kind) -> dict[str, Any]:
    return {
        "name": kind.name,
        "path": kind.path,
        "pluralDisplayName": _plural(kind),
        "readOnly": kind.read_only,
        "singularDisplayName": _spaced(kind.name),
        "isExperimental": False,
        "isTargetRefBased": kind.nested,
        "isInbound": kind.nested,
        "isOutbound": False,
    }


def _plural(kind: Kind) -> str:
    return _spaced("Meshes" if kind is kinds.MESH else f"{kind.name}s")


def _spaced(name: str) -> str:
    return "".join(f" {letter}" if letter.isupper() and index else letter for index, letter in enumerate(name))
