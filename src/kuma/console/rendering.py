"""Makes pages of templates. Everything that is put into one is escaped; none has a script or a style of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import kuma
from kuma.api.http.access_control import AUTHENTICATED
from kuma.console import guard
from kuma.console.context import ConsoleContext
from kuma.console.views import times

STATIC = files("kuma.console") / "static"
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def page(
    request: Request, context: ConsoleContext, template: str, values: Mapping[str, Any], status: int = 200
) -> Response:
    """Answers with a page. `mesh`, if it is among `values`, is the one that the page is about."""
    visitor = guard.visitor(request)
    now = context.api.clock.now()
    known = {
        "now": now,
        "visitor": visitor,
        "known": AUTHENTICATED in visitor.caller.groups or context.api.settings.access.anonymous_reads,
        "version": kuma.__version__,
        "mesh": "",
        "live": "",
        "here": request.scope["path"],
        "distance": lambda time: times.distance(time, now),
    }
    text = _environment().get_template(template).render({**known, **values})
    # What no encoding can carry is shown as `?`: nothing that is stored may keep a page from being shown.
    return HTMLResponse(text.encode(errors="replace"), status)


def url(*parts: str, **query: object) -> str:
    """Returns the URL of a page of the console."""
    path = "/".join((guard.PATH, *(quote(part, safe="") for part in parts)))
    given = {name: value for name, value in query.items() if value not in ("", None)}
    return f"{path}?{urlencode(given)}" if given else path


@cache
def asset(name: str) -> str:
    """Returns the URL of a static file, which is another one when its content is."""
    return f"{guard.PATH}/static/{hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}/{name}"


async def static(request: Request) -> Response:
    """Serves a static file."""
    name = request.path_params["name"]
    known = {entry.name for entry in STATIC.iterdir()}
    if name not in known:
        return Response("not found", 404, media_type="text/plain")
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response((STATIC / name).read_bytes(), media_type=_TYPES[name.rpartition(".")[2]], headers=headers)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("kuma.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["whole"] = times.whole
    made.globals.update(url=url, asset=asset)
    return made
