"""The permissions of a mesh, and its Secrets without what they hold."""

from __future__ import annotations

import yaml
from starlette.requests import Request
from starlette.responses import Response

from kuma.console import rendering
from kuma.console.context import ConsoleContext
from kuma.console.live import Live
from kuma.console.pages import reading
from kuma.console.views import lists, secrets
from kuma.resources import codec, kinds
from kuma.resources.resource import Resource


class Policies:
    """Shows permissions and Secrets."""

    def __init__(self, context: ConsoleContext, live: Live) -> None:
        self._context = context
        self._live = live

    async def permissions(self, request: Request) -> Response:
        self._context.api.check(request, kinds.TRAFFIC_PERMISSION)
        self._context.api.check(request, kinds.MESH_TRAFFIC_PERMISSION)
        mesh = request.path_params["mesh"]
        position, view = self._live.position(mesh), reading.view(self._context, mesh)
        asked = request.query_params.get("q", "")[:100]
        whole = [*view.permissions.values(), *view.mesh_permissions.values()]
        named = sorted((one for one in whole if asked.lower() in one.name.lower()), key=lambda one: one.name)
        found = lists.page(named, reading.number(request.query_params.get("page", "1")))
        texts = await self._context.api.costly.do(lambda: [(one, _text(one)) for one in found.items])
        values = {"mesh": mesh, "found": found, "texts": texts, "q": asked, "live": position}
        return rendering.page(request, self._context, "permissions.html", values)

    async def secrets(self, request: Request) -> Response:
        """Shows administrators which Secrets there are; nothing of what they hold."""
        self._context.api.check(request, kinds.SECRET)
        mesh = request.path_params["mesh"]
        position, view = self._live.position(mesh), reading.view(self._context, mesh)
        values = {"mesh": mesh, "secrets": await self._context.api.costly.do(secrets.secrets, view), "live": position}
        return rendering.page(request, self._context, "secrets.html", values)


def _text(resource: Resource[object]) -> str:  # type: ignore[type-var]
    return yaml.safe_dump(codec.as_declared(resource), sort_keys=False, allow_unicode=True)
