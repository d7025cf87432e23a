"""The first page: all meshes, where they stand, and what needs attention."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from kuma.api import instances
from kuma.api.http import access_control
from kuma.base.errors import AccessDenied
from kuma.console import rendering
from kuma.console.context import ConsoleContext
from kuma.console.live import Live
from kuma.console.pages import reading
from kuma.console.views import overview
from kuma.console.views.overview import Summary
from kuma.foresight import control_plane_health
from kuma.foresight.findings import Finding
from kuma.resources.kinds import DATAPLANE


class Overview:
    """Shows all meshes."""

    def __init__(self, context: ConsoleContext, live: Live) -> None:
        self._context = context
        self._live = live

    async def show(self, request: Request) -> Response:
        self._context.api.check(request, DATAPLANE)
        position = self._live.position()
        summaries = [await self._summary(mesh) for mesh in sorted(self._context.api.observation.meshes())]
        findings = overview.worst_first([*self._control_planes(request), *(f for s in summaries for f in s.findings)])
        values = {"summaries": summaries, "findings": findings, "live": position}
        return rendering.page(request, self._context, "overview.html", values)

    async def _summary(self, mesh: str) -> Summary:
        known = await reading.known(self._context, mesh)
        return await self._context.api.costly.do(overview.summary, known.view, known.insights, known.summary, known.now)

    def _control_planes(self, request: Request) -> Sequence[Finding]:
        """Looks at the control planes and their settings, for those who may see them."""
        api = self._context.api
        try:
            access_control.check_grant(api.caller(request), api.settings.access.control_plane_metadata, "settings")
        except AccessDenied:
            return ()
        shown, now = api.server_certificate(), api.clock.now()
        return control_plane_health.examine(api.configuration, instances.all_shown(api), shown, now)
