"""Summaries of meshes and services, and which permissions act on which proxies: the original's inspection paths."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from kuma.api.context import ApiContext
from kuma.api.derived import summaries
from kuma.api.derived.summaries import POLICIES, Dataplanes
from kuma.api.http.bodies import json_answer
from kuma.api.routes import resources
from kuma.api.routes.late_route import LateRoute
from kuma.base.errors import NotFound
from kuma.policy.permissions import Permissions
from kuma.resources import kinds
from kuma.resources.kinds import DATAPLANE, DATAPLANE_INSIGHT, MESH, Kind
from kuma.resources.resource import Resource


def routes(context: ApiContext) -> APIRouter:
    """Returns all of these routes. They need the right to read Dataplanes."""
    router, found = APIRouter(tags=["Inspection"], route_class=LateRoute), _Inspection(context)

    def get(path: str, answer: Any, summary: str) -> None:
        router.add_api_route(path, context.costly.in_turn(answer), methods=["GET"], summary=summary)

    get("/mesh-insights", found.mesh_insights, "Summaries of all meshes")
    get("/mesh-insights/{name}", found.mesh_insight, "Summary of a mesh")
    get("/service-insights", found.service_insights, "Summaries of the services of all meshes")
    get("/meshes/{mesh}/service-insights", found.service_insights, "Summaries of the services of a mesh")
    get("/meshes/{mesh}/service-insights/{name}", found.service_insight, "Summary of a service")
    get("/meshes/{mesh}/dataplanes/{name}/policies", found.policies, "The permissions that act on a dataplane")
    get("/meshes/{mesh}/dataplanes/{name}/_rules", found.rules, "What permissions say about a dataplane's inbounds")
    for kind in POLICIES:
        base = f"/meshes/{{mesh}}/{kind.path}/{{name}}"
        get(f"{base}/dataplanes", found.attached(kind), f"What a {kind.singular} acts on")
        summary = f"The dataplanes that a {kind.singular} acts on"
        get(f"{base}/_resources/dataplanes", found.acted_on(kind), summary)
        # The original's client asks for this path, which its own server does not have.
        alias = f"{base}/-resources/dataplanes"
        router.add_api_route(
            alias, context.costly.in_turn(found.acted_on(kind)), methods=["GET"], include_in_schema=False
        )
    return router


class _Inspection:
    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._manager = context.manager

    async def mesh_insights(self, request: Request) -> Response:
        self._begin(request)

        async def show(meshes: Sequence[Resource[Any]]) -> Sequence[Any]:
            return [await self._mesh_insight(mesh) for mesh in meshes]

        return await resources.page(request, self._context, MESH, None, show)

    async def mesh_insight(self, request: Request, name: str) -> Response:
        self._begin(request)
        return json_answer(await self._mesh_insight(await self._manager.get(MESH.key(name))))

    async def _mesh_insight(self, mesh: Resource[Any]) -> Any:
        totals = {kind.name: (await self._manager.list(kind.name, mesh.name, limit=1)).total for kind in POLICIES}
        dataplanes = await self._dataplanes(mesh.name)
        return await asyncio.to_thread(summaries.mesh_insight, mesh, dataplanes, totals)

    async def service_insights(self, request: Request, mesh: str = "") -> Response:
        self._begin(request)
        if mesh:
            await self._context.check_mesh(mesh)
            meshes: Sequence[Resource[Any]] = [await self._manager.get(MESH.key(mesh))]
        else:
            meshes = (await self._manager.list(MESH.name)).items
        items = [item for each in meshes for item in await self._services(each)]
        return resources.answer_page(request, items)

    async def service_insight(self, request: Request, mesh: str, name: str) -> Response:
        self._begin(request)
        await self._context.check_mesh(mesh)
        for item in await self._services(await self._manager.get(MESH.key(mesh))):
            if item["name"] == name:
                return json_answer(item)
        raise NotFound(f'there is no service "{name}" in mesh "{mesh}"')

    async def _services(self, mesh: Resource[Any]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(summaries.service_insights, mesh, await self._dataplanes(mesh.name))

    async def policies(self, request: Request, mesh: str, name: str) -> Response:
        self._begin(request)
        await self._context.check_mesh(mesh)
        dataplane = await self._manager.get(DATAPLANE.key(name, mesh))
        items = summaries.matched_policies(dataplane, await self._permissions(mesh))
        return json_answer({"kind": "SidecarDataplane", "total": len(items), "items": items})

    async def rules(self, request: Request, mesh: str, name: str) -> Response:
        self._begin(request)
        await self._context.check_mesh(mesh)
        dataplane = await self._manager.get(DATAPLANE.key(name, mesh))
        rules = summaries.rules(dataplane, await self._permissions(mesh))
        meta = {"type": DATAPLANE.name, "mesh": mesh, "name": name, "labels": dict(dataplane.labels)}
        return json_answer({"resource": meta, "rules": rules, "httpMatches": []})

    def attached(self, kind: Kind) -> Any:
        async def answer(request: Request, mesh: str, name: str) -> Response:
            found = await self._affected(request, kind, mesh, name)
            items = [
                {
                    "kind": "SidecarDataplane",
                    "dataplane": {"mesh": dataplane.mesh, "name": dataplane.name},
                    "attachments": attachments,
                }
                for dataplane, attachments in found
            ]
            return json_answer({"total": len(items), "items": items})

        return answer

    def acted_on(self, kind: Kind) -> Any:
        async def answer(request: Request, mesh: str, name: str) -> Response:
            found = await self._affected(request, kind, mesh, name)
            return resources.answer_page(
                request, [{"type": DATAPLANE.name, "mesh": d.mesh, "name": d.name} for d, _ in found]
            )

        return answer

    async def _affected(
        self, request: Request, kind: Kind, mesh: str, name: str
    ) -> list[tuple[Resource[Any], list[dict[str, Any]]]]:
        self._begin(request)
        await self._context.check_mesh(mesh)
        policy, permissions = await self._manager.get(kind.key(name, mesh)), await self._permissions(mesh)
        dataplanes = (await self._manager.list(DATAPLANE.name, mesh)).items
        found = await asyncio.to_thread(
            lambda: [(dataplane, summaries.affected(policy, dataplane, permissions)) for dataplane in dataplanes]
        )
        return [(dataplane, attachments) for dataplane, attachments in found if attachments]

    async def _permissions(self, mesh: str) -> Permissions:
        legacy = await self._manager.list(kinds.TRAFFIC_PERMISSION.name, mesh)
        return Permissions.of(legacy.items, (await self._manager.list(kinds.MESH_TRAFFIC_PERMISSION.name, mesh)).items)

    async def _dataplanes(self, mesh: str) -> Dataplanes:
        insights = {i.name: i.spec for i in (await self._manager.list(DATAPLANE_INSIGHT.name, mesh)).items}
        return [(d, insights.get(d.name)) for d in (await self._manager.list(DATAPLANE.name, mesh)).items]

    def _begin(self, request: Request) -> None:
        request.state.title = "Could not retrieve resources"
        self._context.check(request, DATAPLANE)
