"""Dataplanes together with what is known of their proxies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from kuma.api.context import ApiContext
from kuma.api.http.bodies import json_answer
from kuma.api.routes import resources
from kuma.api.routes.late_route import LateRoute
from kuma.resources import codec
from kuma.resources.kinds import DATAPLANE, DATAPLANE_INSIGHT
from kuma.resources.resource import Resource


def routes(context: ApiContext) -> APIRouter:
    """Returns the overview in its old and new paths."""
    router = APIRouter(tags=["DataplaneOverview"], route_class=LateRoute)

    async def show(dataplanes: Sequence[Resource[Any]]) -> list[dict[str, Any]]:
        return [_overview(d, await _insight(context, d)) for d in dataplanes]

    @context.costly.in_turn
    async def list_(request: Request, mesh: str = "") -> Response:
        request.state.title = "Could not retrieve resources"
        context.check(request, DATAPLANE)
        if mesh:
            await context.check_mesh(mesh)
        return await resources.page(request, context, DATAPLANE, mesh or None, show)

    async def read(request: Request, mesh: str, name: str) -> Response:
        request.state.title = "Could not retrieve a resource"
        context.check(request, DATAPLANE)
        await context.check_mesh(mesh)
        dataplane = await context.manager.get(DATAPLANE.key(name, mesh))
        return json_answer({"dataplaneInsight": {}, **_overview(dataplane, await _insight(context, dataplane))})

    for path in ("/meshes/{mesh}/dataplanes+insights", "/meshes/{mesh}/dataplanes/_overview", "/dataplanes/_overview"):
        router.add_api_route(path, list_, methods=["GET"], summary="List dataplanes with their insights")
    for path in ("/meshes/{mesh}/dataplanes+insights/{name}", "/meshes/{mesh}/dataplanes/{name}/_overview"):
        router.add_api_route(path, read, methods=["GET"], summary="Read a dataplane with its insight")
    return router


async def _insight(context: ApiContext, dataplane: Resource[Any]) -> Resource[Any] | None:
    return await context.manager.find(DATAPLANE_INSIGHT.key(dataplane.name, dataplane.mesh))


def _overview(dataplane: Resource[Any], insight: Resource[Any] | None) -> dict[str, Any]:
    found = {**codec.meta(dataplane), "type": "DataplaneOverview", "dataplane": dataplane.spec.to_wire()}
    return found if insight is None else {**found, "dataplaneInsight": insight.spec.to_wire()}
