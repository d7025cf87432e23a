"""The API's documentation for people, at `/docs`: Swagger UI, all of it from this server, nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html

from kuma.api.routes.late_route import LateRoute

_PAGE, _SCRIPT, _STYLE = "/docs", "/docs/swagger-ui.js", "/docs/swagger-ui.css"
_NOTHING_FOREIGN = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""The browser is told to load nothing from elsewhere: a page of an administrator's runs nobody else's scripts. Nor does
a page of somebody else show it in a frame."""


def routes(title: str) -> APIRouter:
    """Serves the API's documentation at `/docs`: Swagger UI, entirely from this server."""
    router = APIRouter(include_in_schema=False, route_class=LateRoute)
    assets = files("fastapi_offline") / "static"

    @router.get(_PAGE)
    async def page() -> Response:
        found = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=title,
            swagger_js_url=_SCRIPT,
            swagger_css_url=_STYLE,
            swagger_favicon_url="data:,",
            swagger_ui_parameters={"validatorUrl": None},
        )
        found.headers["content-security-policy"] = _NOTHING_FOREIGN
        return found

    @router.get(_SCRIPT)
    async def script() -> Response:
        return Response((assets / "swagger-ui-bundle.js").read_bytes(), media_type="text/javascript")

    @router.get(_STYLE)
    async def style() -> Response:
        return Response((assets / "swagger-ui.css").read_bytes(), media_type="text/css")

    return router
