"""Routes about zones: there is one, this control plane's, and no proxies between zones."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from kuma.api.context import ApiContext
from kuma.api.http.bodies import json_answer
from kuma.api.http.versions import VERSION
from kuma.api.routes import resources
from kuma.api.routes.late_route import LateRoute
from kuma.base.errors import NotFound
from kuma.resources import codec, kinds
from kuma.resources.kinds import DATAPLANE
from kuma.resources.resource import NEVER
from kuma.resources.tags import THE_ZONE


def routes(context: ApiContext) -> APIRouter:
    """Returns the zone, by itself and with what is seen of it, under the original's paths of every version."""
    router, found = APIRouter(tags=["Zones"], route_class=LateRoute), _Zone(context)

    def get(path: str, answer: Any, summary: str) -> None:
        router.add_api_route(path, answer, methods=["GET"], summary=summary)

    get("/zones", found.list, "The zones: one, this control plane's")
    get("/zones/_overview", found.list_overviews, "The zones with what is seen of them")
    get("/zones+insights", found.list_overviews, "The same, under the path of older clients")
    get("/zones/{name}", found.read, "The zone")
    get("/zones/{name}/_overview", found.read_overview, "The zone with what is seen of it")
    get("/zones+insights/{name}", found.read_overview, "The same, under the path of older clients")
    get("/status/zones", found.status, "Whether the zones are connected: this one always is")
    for path in ("zoneingresses", "zone-ingresses", "zoneegresses"):
        get(f"/{path}/_overview", found.no_proxies, "Proxies between zones, of which there are none")
    return router


class _Zone:
    def __init__(self, context: ApiContext) -> None:
        self._context = context

    async def list(self, request: Request) -> Response:
        return resources.answer_page(request, [await self._zone(request)])

    async def list_overviews(self, request: Request) -> Response:
        return resources.answer_page(request, [await self._overview(request)])

    async def read(self, request: Request, name: str) -> Response:
        zone = await self._zone(request)
        self._check_name(name)
        return json_answer(zone)

    async def read_overview(self, request: Request, name: str) -> Response:
        overview = await self._overview(request)
        self._check_name(name)
        return json_answer(overview)

    async def status(self, request: Request) -> Response:
        self._begin(request)
        return json_answer([{"name": THE_ZONE, "active": True}])

    async def no_proxies(self, request: Request) -> Response:
        self._begin(request)
        return resources.answer_page(request, [])

    async def _zone(self, request: Request) -> dict[str, Any]:
        self._begin(request)
        return {"type": "Zone", **await self._meta(), "enabled": True}

    async def _overview(self, request: Request) -> dict[str, Any]:
        """Returns the zone, which has been connected for as long as there has been its store."""
        self._begin(request)
        meta, instance = await self._meta(), self._context.instance
        since = meta["creationTime"]
        subscription = {
            "id": instance,
            "zoneInstanceId": instance,
            "connectTime": since,
            "status": {"lastUpdateTime": since, "total": {}},
            "version": {"kumaCp": {"version": VERSION}},
        }
        seen = {"zone": {"enabled": True}, "zoneInsight": {"subscriptions": [subscription]}}
        return {"type": "ZoneOverview", **meta, **seen}

    async def _meta(self) -> dict[str, str]:
        store = await self._context.manager.find(kinds.CLUSTER_ID)
        since = codec.rfc3339(store.creation_time if store else NEVER)
        return {"name": THE_ZONE, "creationTime": since, "modificationTime": since}

    def _begin(self, request: Request) -> None:
        request.state.title = "Could not retrieve resources"
        self._context.check(request, DATAPLANE)

    @staticmethod
    def _check_name(name: str) -> None:
        if name != THE_ZONE:
            raise NotFound(f'there is one zone, "{THE_ZONE}"')
