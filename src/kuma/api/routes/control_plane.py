"""Routes about the control plane itself: version, caller and configuration."""

from __future__ import annotations

import platform

from fastapi import APIRouter, Request, Response

from kuma.api import instances
from kuma.api.context import ApiContext
from kuma.api.http.bodies import json_answer
from kuma.api.http.versions import VERSION
from kuma.api.routes.late_route import LateRoute
from kuma.resources import kinds


def routes(context: ApiContext) -> APIRouter:
    """Returns all of these routes."""
    router = APIRouter(tags=["Control plane"], route_class=LateRoute)

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
                "gui": "/gui",
            }
        )

    @router.get("/who-am-i", summary="Who the caller is taken for")
    async def who_am_i(request: Request) -> Response:
        caller = context.caller(request)
        return json_answer({"name": caller.name, "groups": caller.groups})

    @router.get("/control-planes", summary="The control planes over this store that are there")
    async def control_planes(request: Request) -> Response:
        context.check(request, kinds.DATAPLANE)
        items = instances.all_shown(context)
        return json_answer({"total": len(items), "items": items, "next": None})

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


async def _cluster_id(context: ApiContext) -> str:
    found = await context.manager.find(kinds.CLUSTER_ID)
    return found.spec.config if found else ""
