"""Routes about connected proxies: their certificates, and the configuration that they should run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from kuma.api.context import ApiContext, Certificate
from kuma.api.http.access_control import Grant
from kuma.api.http.bodies import json_answer
from kuma.api.http.errors import Problem
from kuma.api.routes import resources
from kuma.api.routes.late_route import LateRoute
from kuma.resources import codec
from kuma.resources.kinds import DATAPLANE


def routes(context: ApiContext) -> APIRouter:
    """Returns the routes."""
    router = APIRouter(tags=["Proxies"], route_class=LateRoute)

    async def certificates(request: Request, mesh: str = "") -> Response:
        request.state.title = "Could not retrieve resources"
        context.check(request, DATAPLANE)
        if mesh:
            await context.check_mesh(mesh)
        found = sorted(await context.connected.certificates(), key=lambda c: (c.mesh, c.dataplane))
        return resources.answer_page(request, [c for c in found if mesh in ("", c.mesh)], _shown)

    access = context.settings.access

    async def check(
        request: Request, mesh: str, name: str, grant: Grant = access.get_config_dump, what: str = "config dump"
    ) -> None:
        request.state.title = "Could not retrieve a resource"
        context.check_grant(request, grant, what)
        await context.check_mesh(mesh)
        await context.manager.get(DATAPLANE.key(name, mesh))

    async def wanted(request: Request, mesh: str, name: str) -> Response:
        await check(request, mesh, name)
        _check_shadow(request)
        async with context.costly.turn():
            return json_answer(await context.connected.wanted_configuration(mesh, name))

    async def config_dump(request: Request, mesh: str, name: str) -> Response:
        await check(request, mesh, name)
        query = {"include_eds": ""} if request.query_params.get("include_eds") == "true" else {}
        return Response(await context.connected.envoys.config_dump(mesh, name, query), media_type="application/json")

    def counted(path: str, grant: Grant) -> Callable[[Request, str, str], Awaitable[Response]]:
        async def read(request: Request, mesh: str, name: str) -> Response:
            await check(request, mesh, name, grant, path.strip("/"))
            as_json = request.query_params.get("format") == "json"
            found = await context.connected.envoys.read(mesh, name, path, {"format": "json"} if as_json else {})
            return Response(found, media_type="application/json" if as_json else "text/plain")

        return read

    stats, clusters = counted("/stats", access.view_stats), counted("/clusters", access.view_clusters)
    for path in ("/certificates", "/meshes/{mesh}/certificates"):
        in_turn = context.costly.in_turn(certificates)
        router.add_api_route(path, in_turn, methods=["GET"], summary="The certificates that proxies use now")
    for last, answer, summary in (
        ("_config", wanted, "What a proxy should be running now"),
        ("xds", config_dump, "What a proxy is running, as its Envoy says"),
        ("stats", stats, "What a proxy's Envoy counts"),
        ("clusters", clusters, "The clusters of a proxy and their endpoints, as its Envoy sees them"),
    ):
        path = f"/meshes/{{mesh}}/dataplanes/{{name}}/{last}"
        router.add_api_route(path, answer, methods=["GET"], summary=summary)
    return router


_NO_SHADOW = (
    "what policies with the label kuma.io/effect: shadow would change is not computed as a configuration here; "
    "`kumactl preview -f FILE`, with a file without that label, says whom a policy would refuse or let in"
)


def _check_shadow(request: Request) -> None:
    if request.query_params.get("shadow") == "true" or request.query_params.get("include"):
        raise Problem(400, request.state.title, _NO_SHADOW)


def _shown(certificate: Certificate) -> dict[str, Any]:
    return {
        "type": "Certificate",
        "mesh": certificate.mesh,
        "name": certificate.dataplane,
        "serial": certificate.serial,
        "spiffeIds": certificate.spiffe_ids,
        "backend": certificate.authority,
        "notBefore": codec.rfc3339(certificate.not_before),
        "notAfter": codec.rfc3339(certificate.not_after),
        "reason": certificate.reason,
    }
