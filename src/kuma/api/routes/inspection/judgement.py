"""Judges a mesh as it is: its health, why a call is admitted or refused, and which permissions what was seen needs."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from kuma.api import instances
from kuma.api.context import ApiContext
from kuma.api.http.bodies import json_answer
from kuma.api.http.errors import Problem
from kuma.api.routes import resources
from kuma.api.routes.inspection.seen import seen
from kuma.api.routes.late_route import LateRoute
from kuma.base.errors import AccessDenied, NotFound
from kuma.foresight import control_plane_health, explanation, health, suggestions
from kuma.foresight.findings import Finding
from kuma.foresight.health import Examined
from kuma.resources import codec, kinds
from kuma.resources.kinds import DATAPLANE
from kuma.resources.resource import Model

_KINDS = {kind.singular: kind for kind in (kinds.MESH_TRAFFIC_PERMISSION, kinds.TRAFFIC_PERMISSION)}


def routes(context: ApiContext) -> APIRouter:
    """Returns these routes. They need the right to read Dataplanes."""
    router, found = APIRouter(tags=["Inspection"], route_class=LateRoute), _Judgement(context)
    for path, answer, summary in (
        ("/health-findings", found.health, "What is wrong with the meshes, and what to do about it"),
        ("/meshes/{mesh}/call-explanations", found.explain, "What becomes of calls of ?caller to ?called, and why"),
        ("/meshes/{mesh}/permission-suggestions", found.suggest, "The least permissions that admit what was seen"),
    ):
        router.add_api_route(path, context.costly.in_turn(answer), methods=["GET"], summary=summary)
    return router


class _Judgement:
    def __init__(self, context: ApiContext) -> None:
        self._context = context

    async def health(self, request: Request) -> Response:
        self._begin(request, "Could not examine the meshes")
        asked = request.query_params.get("mesh", "")
        if asked:
            await self._context.check_mesh(asked)
        found: list[Finding] = [] if asked else self._control_planes(request)
        for mesh in [asked] if asked else sorted(self._context.observation.meshes()):
            view, insights, _, summary = await seen(self._context, mesh)
            examined = Examined(view, insights, summary, self._context.clock.now())
            found += await asyncio.to_thread(health.examine, examined)
        return resources.answer_page(request, list(map(_shown, found)))

    def _control_planes(self, request: Request) -> list[Finding]:
        """Looks at the control planes and their settings, for those who may see them."""
        try:
            self._context.check_grant(request, self._context.settings.access.control_plane_metadata, "settings")
        except AccessDenied:
            return []
        shown, now = self._context.server_certificate(), self._context.clock.now()
        return list(
            control_plane_health.examine(self._context.configuration, instances.all_shown(self._context), shown, now)
        )

    async def explain(self, request: Request, mesh: str) -> Response:
        self._begin(request, "Could not explain the call")
        await self._context.check_mesh(mesh)
        caller, called = (request.query_params.get(name, "") for name in ("caller", "called"))
        if not (caller and called):
            raise Problem(400, "Bad Request", "say who calls whom: ?caller=web&called=backend")
        view, insights, _, _ = await seen(self._context, mesh)
        found = await asyncio.to_thread(explanation.explain, view, insights, caller, called)
        if not found:
            what = "service, Dataplane, SPIFFE ID or listener"
            raise NotFound(f'no inbound of mesh "{mesh}" is called "{called[:100]}"; name a {what}')
        return resources.answer_page(request, list(map(_shown, found)))

    async def suggest(self, request: Request, mesh: str) -> Response:
        self._begin(request, "Could not suggest permissions")
        await self._context.check_mesh(mesh)
        kind = _KINDS.get(request.query_params.get("kind", kinds.MESH_TRAFFIC_PERMISSION.singular))
        if kind is None:
            raise Problem(400, "Bad Request", f"kind has to be one of {', '.join(_KINDS)}")
        view, _, callers, _ = await seen(self._context, mesh)
        found = suggestions.suggested(view, callers, kind)
        return json_answer(
            {
                "items": [codec.to_universal(permission) for permission in found.permissions],
                "leftOut": list(map(_shown, found.left_out)),
            }
        )

    def _begin(self, request: Request, title: str) -> None:
        request.state.title = title
        self._context.check(request, DATAPLANE)


def _shown(model: Model) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True)
