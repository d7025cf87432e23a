"""The proxies of a mesh, paged and filtered, and one of them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from kuma.api.derived import summaries
from kuma.api.http.errors import Problem
from kuma.console import rendering
from kuma.console.context import ConsoleContext
from kuma.console.live import Live
from kuma.console.pages import reading
from kuma.console.views import proxies
from kuma.foresight.judge import Judge
from kuma.resources.kinds import DATAPLANE


class ProxyPages:
    """Shows proxies."""

    def __init__(self, context: ConsoleContext, live: Live) -> None:
        self._context = context
        self._live = live

    async def list(self, request: Request) -> Response:
        self._context.api.check(request, DATAPLANE)
        mesh, query = request.path_params["mesh"], request.query_params
        position = self._live.position(mesh)
        view, insights, now = (
            reading.view(self._context, mesh),
            self._context.followed.insights(mesh),
            self._context.api.clock.now(),
        )
        asked, state = query.get("q", "")[:100], query.get("state", "all")
        found = await self._context.api.costly.do(
            proxies.found, view, insights, asked, state, reading.number(query.get("page", "1")), now
        )
        states = [(key, text, found.counts[key]) for key, (text, _) in proxies.STATES.items()]
        values = {"mesh": mesh, "found": found.proxies, "q": asked, "state": state, "states": states, "live": position}
        return rendering.page(request, self._context, "proxies.html", values)

    async def show(self, request: Request) -> Response:
        self._context.api.check(request, DATAPLANE)
        mesh, name = request.path_params["mesh"], request.path_params["name"]
        position, view = self._live.position(mesh), reading.view(self._context, mesh)
        dataplane = view.dataplanes.get(name)
        if dataplane is None:
            raise Problem(404, "Not found", f'There is no Dataplane "{name[:100]}" in mesh "{mesh[:100]}".')
        insight = self._context.followed.insights(mesh).get(name)
        values = {
            "mesh": mesh,
            "proxy": proxies.proxy(dataplane, insight, mesh),
            "dataplane": dataplane,
            "insight": insight,
            "policies": summaries.matched_policies(dataplane, Judge(view).permissions),
            "live": position,
        }
        return rendering.page(request, self._context, "proxy.html", values)
