"""The console as one application, which is mounted into the API's at `/gui`."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kuma.api.http import errors
from kuma.api.http.errors import Problem
from kuma.base.errors import AccessDenied
from kuma.console import guard, rendering
from kuma.console.context import ConsoleContext
from kuma.console.guard import Guard
from kuma.console.live import Live
from kuma.console.pages import sign_in
from kuma.console.pages.calls import CallPages
from kuma.console.pages.mesh import MeshPage
from kuma.console.pages.overview import Overview
from kuma.console.pages.policies import Policies
from kuma.console.pages.preview import PreviewPage
from kuma.console.pages.proxies import ProxyPages
from kuma.console.pages.records import Records
from kuma.console.pages.sign_in import SignIn

log = structlog.get_logger(__name__)

PATH = guard.PATH
Endpoint = Callable[[Request], Awaitable[Response]]


def install(api: Starlette, context: ConsoleContext) -> None:
    """Serve the console beside the API's routes."""
    api.router.routes.append(Route(PATH, _to_the_beginning, methods=["GET"]))
    api.mount(PATH, create_app(context))


async def _to_the_beginning(_: Request) -> Response:
    return RedirectResponse(rendering.url(""))


def create_app(context: ConsoleContext) -> Any:
    """Makes the application. Everything that it shows and does goes through `context`."""
    live, entry = Live(context), SignIn(context)
    proxies, calls = ProxyPages(context, live), CallPages(context, live)
    policies, records, preview = Policies(context, live), Records(context, live), PreviewPage(context)
    pages = _Pages(context)
    app = Starlette(
        routes=[
            pages.get("/", Overview(context, live).show),
            pages.get("/live", live.stream),
            pages.get("/sign-in", entry.show),
            pages.post("/sign-in", entry.enter),
            pages.post("/sign-out", entry.leave),
            pages.get("/meshes/{mesh}", MeshPage(context, live).show),
            pages.get("/meshes/{mesh}/proxies", proxies.list),
            pages.get("/meshes/{mesh}/proxies/{name}", proxies.show),
            pages.get("/meshes/{mesh}/calls", calls.matrix),
            pages.get("/meshes/{mesh}/calls/{service:path}", calls.service),
            pages.get("/meshes/{mesh}/permissions", policies.permissions),
            pages.get("/meshes/{mesh}/secrets", policies.secrets),
            pages.get("/meshes/{mesh}/preview", preview.show),
            pages.post("/meshes/{mesh}/preview", preview.judge),
            pages.get("/certificates", records.certificates),
            pages.get("/audit", records.audit),
            pages.get("/instances", records.instances),
            Route("/static/{hash}/{name}", rendering.static),
        ],
        exception_handlers={HTTPException: pages.unknown},
    )
    app.router.redirect_slashes = False  # it would redirect to where the Host header says, over what we take for HTTP
    return Guard(app, context)


class _Pages:
    """Routes whose errors are pages, too."""

    def __init__(self, context: ConsoleContext) -> None:
        self._context = context

    def get(self, path: str, show: Endpoint) -> Route:
        return Route(path, self._answering(show), methods=["GET"])

    def post(self, path: str, do: Endpoint) -> Route:
        return Route(path, self._answering(do), methods=["POST"])

    async def unknown(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return self._error(request, Problem(404, "Not found", "There is no such page."))
        return self._error(request, Problem(error.status_code, "That is not possible", str(error.detail)))

    def _answering(self, endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except AccessDenied as error:
                return sign_in.turned_away(request) or self._error(request, error)
            except Exception as error:
                return self._error(request, error)

        return answer

    def _error(self, request: Request, error: Exception) -> Response:
        """Shows what went wrong. Of what nobody expected the page has a reference only, and the log the rest."""
        found = errors.problem(error, "That did not work")
        if found.status == 500:
            reference = str(uuid.uuid4())
            log.error("page failed", path=request.scope["path"], reference=reference, exc_info=error)
            detail = f"Something unexpected has happened; the control plane's log has it under {reference}."
            found = Problem(500, "That did not work", detail)
        values = {"title": found.title, "detail": found.detail, "violations": found.violations}
        answer = rendering.page(request, self._context, "error.html", values, found.status)
        if found.status in (429, 503):
            answer.headers["retry-after"] = errors.RETRY_AFTER
        return answer
