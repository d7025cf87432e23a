"""What a change would do, before it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from kuma.api.context import ApiContext
from kuma.api.http.bodies import json_answer
from kuma.api.routes.inspection.seen import seen
from kuma.api.routes.late_route import LateRoute
from kuma.base.errors import InvalidResource
from kuma.foresight import preview
from kuma.foresight.preview import Changes, Known, Preview
from kuma.resources import codec, kinds
from kuma.resources.kinds import DATAPLANE
from kuma.resources.resource import Key, Resource

_MOST = 1000
"""Resources of one request."""


def routes(context: ApiContext) -> APIRouter:
    """Returns the route. It needs the right to read Dataplanes, changes nothing, and shows nothing of a Secret."""
    router = APIRouter(tags=["Inspection"], route_class=LateRoute)

    @router.post("/preview", summary="To whom a change would do what")
    async def previewed(request: Request) -> Response:
        request.state.title = "Could not preview the change"
        context.settings.access.check(context.caller(request), DATAPLANE, "GET")
        body = await context.body(request)
        within = preview.within(body.get("within"))
        async with context.costly.turn():
            changes = await asyncio.to_thread(_changes, body)
            found = [await _preview(context, mesh, some, within) for mesh, some in sorted(changes.items())]
        items = [one.model_dump(mode="json", by_alias=True) for one in found]
        return json_answer({"breaks": any(one.breaks for one in found), "items": items})

    return router


def _changes(body: Mapping[str, Any]) -> Mapping[str, Changes]:
    """Reads `{resources: [...], delete: [{type, mesh, name}]}`; `within` is read elsewhere.

    Raises:
        InvalidResource: it is something else, one of the resources is not valid, or they are of too many meshes.
    """
    unknown = sorted(body.keys() - {"resources", "delete", "within"})
    if unknown:
        raise InvalidResource.of(unknown[0][:100], "is no field of a preview; there are resources, delete and within")
    resources, deleted = (_listed(body, name) for name in ("resources", "delete"))
    found = preview.by_mesh([_parsed(index, one) for index, one in enumerate(resources)], map(_key, deleted))
    preview.check_extent(found)
    return found


def _listed(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = body.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InvalidResource.of(name, "has to be a list of objects")
    if len(found) > _MOST:
        raise InvalidResource.of(name, f"has {len(found):,} entries; {_MOST:,} are the most")
    return found


def _parsed(index: int, document: Mapping[str, Any]) -> Resource[Any]:
    try:
        return codec.parse(document)
    except InvalidResource as error:
        field = f"resources[{index}]"
        raise InvalidResource(
            type(v)(f"{field}.{v.field}" if v.field else field, v.reason) for v in error.violations
        ) from None


def _key(named: Mapping[str, Any]) -> Key:
    kind = kinds.declarable(str(named.get("type", "")))
    return kind.key(str(named.get("name", "")), str(named.get("mesh", "default")))


async def _preview(context: ApiContext, mesh: str, changes: Changes, within: timedelta | None) -> Preview:
    view, insights, callers, summary = await seen(context, mesh)
    known = Known(callers, summary, insights, context.clock.now(), context.observation.pace, within)
    return await asyncio.to_thread(preview.preview, view, changes, known)
