"""Routes about who has called whom, as proxies have reported."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from kuma.api.context import ApiContext
from kuma.api.routes import resources
from kuma.api.routes.late_route import LateRoute
from kuma.foresight import traffic
from kuma.resources.kinds import DATAPLANE


def routes(context: ApiContext) -> APIRouter:
    """Returns these routes. They need the right to read Dataplanes."""
    router = APIRouter(tags=["Inspection"], route_class=LateRoute)

    @router.get("/observed-traffic", summary="What is known of the traffic of all meshes")
    @context.costly.in_turn
    async def summaries(request: Request) -> Response:
        _begin(context, request)
        found = [await _summary(context, mesh) for mesh in sorted(context.observation.meshes())]
        return resources.answer_page(request, found)

    @router.get("/meshes/{mesh}/observed-traffic", summary="Who has called whom in a mesh, and how")
    @context.costly.in_turn
    async def observed(request: Request, mesh: str) -> Response:
        _begin(context, request)
        await context.check_mesh(mesh)
        view, specs = context.observation.view(mesh), await context.observation.traffic(mesh)
        callers = await asyncio.to_thread(traffic.callers, view, specs, context.clock.now())
        return resources.answer_page(request, callers, lambda caller: caller.model_dump(mode="json", by_alias=True))

    return router


async def _summary(context: ApiContext, mesh: str) -> dict[str, object]:
    view, specs = context.observation.view(mesh), await context.observation.traffic(mesh)
    return traffic.summary(view, specs, context.clock.now()).model_dump(mode="json", by_alias=True)


def _begin(context: ApiContext, request: Request) -> None:
    request.state.title = "Could not retrieve observed traffic"
    context.check(request, DATAPLANE)
