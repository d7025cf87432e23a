"""A mesh: its level, its authorities on a time line, and the change that is under way."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from kuma.console import rendering
from kuma.console.context import ConsoleContext
from kuma.console.live import Live
from kuma.console.pages import reading
from kuma.console.views import overview, timeline
from kuma.resources.kinds import DATAPLANE


class MeshPage:
    """Shows a mesh."""

    def __init__(self, context: ConsoleContext, live: Live) -> None:
        self._context = context
        self._live = live

    async def show(self, request: Request) -> Response:
        self._context.api.check(request, DATAPLANE)
        mesh = request.path_params["mesh"]
        position = self._live.position(mesh)
        known = await reading.known(self._context, mesh)
        now = known.now
        found = await self._context.api.costly.do(overview.summary, known.view, known.insights, known.summary, now)
        authorities = await self._context.api.costly.do(timeline.authorities, known.view, now)
        values = {
            "mesh": mesh,
            "summary": found,
            "course": found.course,
            "authorities": authorities,
            "timeline": timeline.timeline(authorities, now),
            "traffic": known.summary,
            "live": position,
        }
        return rendering.page(request, self._context, "mesh.html", values)
