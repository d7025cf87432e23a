"""The REST API as one application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

import kuma
from kuma.api.context import ApiContext
from kuma.api.http import authentication, browsers, errors, hosts, request_limits
from kuma.api.routes import absent, control_plane, docs, dry_run, resources, tokens, zones
from kuma.api.routes import kinds as kind_routes
from kuma.api.routes.inspection import insights, judgement, overviews, preview, proxies, traffic
from kuma.resources import kinds


def create_app(context: ApiContext) -> FastAPI:
    """Makes the application. Everything it does goes through `context`."""
    app = FastAPI(
        title="Kuma control plane", version=kuma.__version__, description=_DESCRIPTION, docs_url=None, redoc_url=None
    )
    authentication.install(app, context)
    errors.install(app, unknown_path=errors.PAGE_NOT_FOUND)
    request_limits.install(app, context.limits, context.clock)
    hosts.install(app)
    browsers.install(app)
    for router in _routers(context, app.title):
        # Not `include_router`, which would make every route a second time, at the first request.
        app.router.routes += router.routes
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _routers(context: ApiContext, title: str) -> Iterator[APIRouter]:
    # Before the generic routes: `dataplanes+insights` and `_overview` are no names of resources.
    yield overviews.routes(context)
    yield insights.routes(context)
    yield traffic.routes(context)
    yield preview.routes(context)
    yield judgement.routes(context)
    yield control_plane.routes(context)
    yield kind_routes.routes(context)
    yield dry_run.routes(context)
    yield docs.routes(title)
    yield proxies.routes(context)
    yield tokens.routes(context)
    yield resources.routes(context)
    yield zones.routes(context)
    yield absent.routes(context)


_DESCRIPTION = "Resources of the mesh. Bodies are in the Universal form: `type`, `mesh`, `name`, then what it says."


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with a schema for every kind that is made from the kind's own model."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for kind in kinds.IN_EFFECT:
            schema = kind.spec.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            meta = {name: {"type": "string"} for name in ("type", "name", *(("mesh",) if kind.in_mesh else ()))}
            if kind.nested:
                schema = {"type": "object", "properties": {"spec": schema}, "required": ["spec"]}
            schema["properties"] = {**meta, **schema.get("properties", {})}
            schemas[kind.name] = {**schema, "title": kind.name, "required": [*meta, *schema.get("required", ())]}
        app.openapi_schema = document
    return app.openapi_schema
