"""Routes about the control plane itself: version, caller, kinds, policies and configuration."""

from __future__ import annotations

import platform
from typing import Any

from fastapi import APIRouter, Request, Response

import kuma
from kuma.api import totals
from kuma.api.context import ApiContext
from kuma.api.derived.summaries import POLICIES
from kuma.api.http.bodies import json_answer
from kuma.resources import kinds
from kuma.resources.kinds import DATAPLANE, Kind

VERSION = f"{kuma.__version__}-preview"
"""What clients are told. Those of the original warn of every version but their own, and of none that says `preview`."""


def routes(context: ApiContext) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["Control plane"])

    @router.get("/", summary="What this is, and in which version")
    async def index() -> Response:
        return json_answer(
            {
                "hostname": platform.node(),
                "tagline": "Kuma",
                "product": "Kuma",
                "version": VERSION,
                "instanceId": context.instance,
                "clusterId": await _cluster_id(context),
            }
        )

    @router.get("/who-am-i", summary="Who the caller is taken for")
    async def who_am_i(request: Request) -> Response:
        caller = context.caller(request)
        return json_answer({"name": caller.name, "groups": caller.groups})

    @router.get("/_resources", summary="The kinds of resources")
    async def all_kinds(request: Request) -> Response:
        context.check(request, DATAPLANE)
        known = sorted(kinds.ALL, key=lambda kind: kind.name)
        return json_answer({"resources": [_kind(kind) for kind in known if kind.name not in _UNKNOWN_TO_CLIENTS]})

    @router.get("/policies", summary="The kinds that are policies")
    async def policies(request: Request) -> Response:
        context.check(request, DATAPLANE)
        return json_answer({"policies": [_policy(kind) for kind in sorted(POLICIES, key=lambda kind: kind.name)]})

    @router.get("/status/zones", summary="The zones that are connected: none, there is one control plane")
    async def zones(request: Request) -> Response:
        context.check(request, DATAPLANE)
        return json_answer([])

    @router.get("/global-insight", summary="How much of everything there is, in all meshes")
    async def global_insight(request: Request) -> Response:
        context.check(request, DATAPLANE)
        return json_answer(await totals.global_insight(context.manager, context.clock.now()))

    @router.get("/global-insights", summary="How many resources there are of the kinds that belong to no mesh")
    async def global_insights(request: Request) -> Response:
        context.check(request, DATAPLANE)
        return json_answer(await totals.global_insights(context.manager))

    @router.get("/config", summary="The settings in effect")
    async def config(request: Request) -> Response:
        context.check_grant(request, context.settings.access.control_plane_metadata, "control-plane metadata")
        return json_answer(context.configuration)

    @router.post("/rekey", summary="Seal all Secrets anew under a new key-encryption key")
    async def rekey(request: Request) -> Response:
        request.state.title = "Could not seal Secrets anew"
        context.check_grant(request, context.settings.access.admin_resources, "the key-encryption key")
        await context.rekey()
        return json_answer({})

    return router


_UNKNOWN_TO_CLIENTS = {"MeshTransition", "MeshExternalService", "MeshMultiZoneService"}
"""Kinds that kumactl 2.7 does not have: it ends with an error when it is told of one."""


async def _cluster_id(context: ApiContext) -> str:
    found = await context.manager.find(kinds.CLUSTER_ID)
    return found.spec.config if found else ""


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
