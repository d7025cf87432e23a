"""Kinds of the original that are neither here nor stored: their lists are empty, so that its clients print a table.

Writing one is refused, with a word on why: nothing is silently ignored.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from kuma.api.context import ApiContext
from kuma.api.http.errors import Problem
from kuma.api.routes import resources
from kuma.api.routes.late_route import LateRoute
from kuma.base.errors import NotFound
from kuma.resources import kinds
from kuma.resources.kinds import DATAPLANE
from kuma.resources.models.stored_only import LEFT_OUT, REFUSED

GLOBAL = (
    "hostnamegenerators", "zoneinsights", "zone-insights", "zone-ingresses", "zoneingresses",
    "zone-ingresses+insights", "zoneingresses+insights", "zoneegresses", "zoneegresses+insights", "zoneegressoverviews",
    "zoneingressoverviews", "zone-ingress-insights", "zoneegressinsights",
)  # fmt: skip
IN_MESH = {
    "meshidentities": "MeshIdentity",
    "meshpassthroughs": "MeshPassthrough",
    "meshtlses": "MeshTLS",
    "meshtrusts": "MeshTrust",
}
_WHY = {"hostnamegenerators": "HostnameGenerator", "zones": "Zone", **IN_MESH}


def routes(context: ApiContext) -> APIRouter:
    """Empty lists, and refusals."""
    router = APIRouter(include_in_schema=False, route_class=LateRoute)

    async def empty(request: Request) -> Response:
        request.state.title = "Could not retrieve resources"
        context.check(request, DATAPLANE)
        if mesh := request.path_params.get("mesh"):
            await context.check_mesh(mesh)
        return resources.answer_page(request, [])

    async def missing(request: Request) -> Response:
        request.state.title = "Could not retrieve a resource"
        context.check(request, DATAPLANE)
        raise NotFound("there are none of this kind")

    async def refused(request: Request) -> Response:
        context.check(request, DATAPLANE)
        collection = request.url.path.rstrip("/").split("/")[-2]
        why = {**REFUSED, **LEFT_OUT}.get(_WHY.get(collection, ""), "")
        detail = "resources of this kind are not implemented by this control plane"
        raise Problem(405, "Method not allowed", f"{detail}: {why}" if why else detail)

    for path in (*IN_MESH, *(kind.path for kind in kinds.STORED_ONLY)):
        for last in ("dataplanes", "_resources/dataplanes", "-resources/dataplanes"):
            router.routes.append(resources.plain_route(f"/meshes/{{mesh}}/{path}/{{name}}/{last}", missing, "GET"))
    for path in ("zone-ingresses", "zoneingresses", "zoneegresses"):
        for last in ("xds", "stats", "clusters"):
            router.routes.append(resources.plain_route(f"/{path}/{{name}}/{last}", missing, "GET"))
    router.routes.append(resources.plain_route("/zones/{name}", refused, "PUT", "DELETE"))
    for path in (*(f"/{path}" for path in (*GLOBAL, *IN_MESH)), *(f"/meshes/{{mesh}}/{path}" for path in IN_MESH)):
        router.routes.append(resources.plain_route(path, empty, "GET"))
        router.routes.append(resources.plain_route(f"{path}/{{name}}", missing, "GET"))
        router.routes.append(resources.plain_route(f"{path}/{{name}}", refused, "PUT", "DELETE"))
    return router
