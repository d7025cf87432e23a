"""The route that tells what would become of several resources if they were applied one after the other.

Each is judged as if those before it were stored: a Secret by the Mesh that comes before it, and so on. Nothing is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from kuma.api import changes
from kuma.api.context import ApiContext
from kuma.api.http import errors
from kuma.api.http.bodies import json_answer
from kuma.api.http.errors import Problem
from kuma.api.routes.late_route import LateRoute
from kuma.base.errors import KumaError, Violation
from kuma.resources import codec, kinds
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager

PATH = "/_dry-run"
_MOST = 1000
"""Resources in one request."""
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "resources": {"type": "array", "items": {"type": "object"}, "maxItems": _MOST},
                        "strict": {"type": "boolean"},
                        "allowWeakening": {"type": "boolean"},
                    },
                    "required": ["resources"],
                }
            }
        },
    }
}


def routes(context: ApiContext) -> APIRouter:
    """Returns the route. Who may write a resource may ask what would become of it."""
    router = APIRouter(tags=["Resources"], route_class=LateRoute)

    @router.post(PATH, summary="What would become of resources if they were applied", openapi_extra=_BODY)
    async def dry_run(request: Request) -> Response:
        request.state.title = "Could not try resources out"
        context.check(request, kinds.DATAPLANE)
        body = await context.body(request)
        listed = body.get("resources")
        if not isinstance(listed, list) or len(listed) > _MOST:
            reason = f"has to be a list of at most {_MOST} resources"
            raise Problem(400, request.state.title, "Invalid request", [Violation("resources", reason)])
        rehearsal = _Rehearsal(context, request, body)
        async with context.costly.turn():
            return json_answer({"items": [await rehearsal.of(item) for item in listed]})

    return router


class _Rehearsal:
    """Resources one after the other, each judged after those before it."""

    def __init__(self, context: ApiContext, request: Request, body: Mapping[str, object]) -> None:
        self._context, self._request = context, request
        self._manager: ResourceManager = context.manager.rehearsal()
        self._strict, self._allow_weakening = body.get("strict") is True, body.get("allowWeakening") is True

    async def of(self, item: object) -> Mapping[str, Any]:
        """Tells what would become of one: what there is, what there would be, and what is said of it."""
        named = item if isinstance(item, dict) else {}
        found: dict[str, Any] = {name: named[name] for name in ("type", "mesh", "name") if name in named}
        try:
            resource = await asyncio.to_thread(codec.parse, named)  # the largest take long
            kind = kinds.by_name(resource.key.kind)
            self._context.check(self._request, kind)
            old = await self._manager.find(resource.key)
            with changes.recording_refusals(self._context, resource.key):
                outcome = await self._manager.put(resource, strict=self._strict, allow_weakening=self._allow_weakening)
        except KumaError as error:
            told = errors.problem(error, "Could not process a resource")
            return {**found, "error": errors.body(told.status, told.title, told.detail, told.violations)}
        return {
            **found,
            "created": outcome.created,
            "changed": old is None or (old.spec, old.labels) != (outcome.resource.spec, outcome.resource.labels),
            "before": _shown(old) if old else None,
            "after": _shown(outcome.resource),
            "warnings": outcome.warnings,
            "stagedChange": outcome.staged,
        }


def _shown(resource: Resource[Any]) -> Mapping[str, Any]:
    """As everybody reads it: what is masked stays so, and of a Secret there is no content."""
    kind = kinds.by_name(resource.key.kind)
    if kind.admin_only:
        return codec.meta(resource)
    return codec.to_universal(resource.with_spec(kind.shown(resource.spec)))
