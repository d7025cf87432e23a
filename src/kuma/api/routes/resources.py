"""Create, read, update and delete, the same for every kind in the table of kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.routing import Route

from kuma.api import changes
from kuma.api.context import ApiContext
from kuma.api.http.bodies import json_answer
from kuma.api.http.errors import Problem
from kuma.api.routes.late_route import LateRoute
from kuma.base.errors import InvalidResource, Violation
from kuma.resources import codec, kinds
from kuma.resources.kinds import DATAPLANE, Kind
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Key, Resource
from kuma.resources.tags import ANY
from kuma.store.protocol import Page

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000

Show = Callable[[Sequence[Resource[Any]]], Awaitable[Sequence[Any]]]
"""Makes the items of a page of the resources in it."""


_REVEAL = {
    "name": "reveal", "in": "query", "description": "true: without masks, for administrators",
    "schema": {"type": "boolean"},
}  # fmt: skip
_STRICT = {
    "name": "strict", "in": "query", "description": "true: refuse what has no effect here",
    "schema": {"type": "boolean"},
}  # fmt: skip
_ALLOW_WEAKENING = {
    "name": "allowWeakening", "in": "query", "description": "true: also if it weakens a mesh that refuses that",
    "schema": {"type": "boolean"},
}  # fmt: skip
_DRY_RUN = {
    "name": "dryRun", "in": "query", "description": "All: judge it as ever, and store nothing",
    "schema": {"type": "string", "enum": ["All"]},
}  # fmt: skip
_MESH = {"name": "mesh", "in": "path", "required": True, "schema": {"type": "string"}}
PAGING = [
    {"name": "size", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE}},
    {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0}},
    {"name": "name", "in": "query", "description": "part of the name", "schema": {"type": "string"}},
]


def routes(context: ApiContext) -> APIRouter:
    """The routes of all kinds."""
    router = APIRouter(route_class=LateRoute)
    for kind in kinds.ALL:
        for path in (kind.path, *kind.path_aliases):
            _KindRoutes(context, kind).add_to(router, path)
    return router


class _KindRoutes:
    """Routes of one kind."""

    def __init__(self, context: ApiContext, kind: Kind) -> None:
        self._context = context
        self._kind = kind

    def add_to(self, router: APIRouter, path: str) -> None:
        """Serve the kind under one path."""
        if self._kind in kinds.STORED_ONLY:
            self._add_plainly(router, path)
            return
        kind, base = self._kind, f"/meshes/{{mesh}}/{path}" if self._kind.in_mesh else f"/{path}"
        item = f"{base}/{{name}}"
        in_path, reveal = [_MESH] if kind.in_mesh else [], [_REVEAL] if kind.masks else []
        one = {"parameters": [*in_path, *reveal]}
        pages = {"parameters": [*in_path, *PAGING, *reveal]}
        body = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": ref(kind)}}}}}

        def add(path: str, do: Any, method: str, summary: str, extra: dict[str, Any]) -> None:
            router.add_api_route(
                path, do, methods=[method], summary=summary, tags=[kind.name], openapi_extra=extra
            )  # fmt: skip

        add(base, self.list, "GET", f"List {kind.plural}", pages)
        if kind.in_mesh:
            add(f"/{path}", self.list_all, "GET", f"List {kind.plural} of all meshes", {"parameters": PAGING})
        add(item, self.read, "GET", f"Read a {kind.singular}", one)
        if not kind.read_only:
            write = {"parameters": [*in_path, _STRICT, _ALLOW_WEAKENING, _DRY_RUN], **body}
            add(item, self.write, "PUT", f"Create or replace a {kind.singular}", write)
            delete = {"parameters": [*in_path, _ALLOW_WEAKENING, _DRY_RUN]}
            add(item, self.delete, "DELETE", f"Delete a {kind.singular}", delete)

    def _add_plainly(self, router: APIRouter, path: str) -> None:
        """Serve a kind that has no effect here, and no model that the API's documentation could show."""
        base = f"/meshes/{{mesh}}/{path}"

        def of_one(do: Callable[[Request, str], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
            async def answer(request: Request) -> Response:
                return await do(request, request.path_params["name"])

            return answer

        router.routes += [
            plain_route(base, self.list, "GET"),
            plain_route(f"/{path}", self.list_all, "GET"),
            plain_route(f"{base}/{{name}}", of_one(self.read), "GET"),
            plain_route(f"{base}/{{name}}", of_one(self.write), "PUT"),
            plain_route(f"{base}/{{name}}", of_one(self.delete), "DELETE"),
        ]

    async def list(self, request: Request) -> Response:
        mesh = await self._begin(request, "Could not retrieve resources")
        return await self._listed(request, mesh)

    async def list_all(self, request: Request) -> Response:
        await self._begin(request, "Could not retrieve resources")
        return await self._listed(request, None)

    async def _listed(self, request: Request, mesh: str | None) -> Response:
        """Reads a page; one that is large, or sought for among all, when there is a turn."""
        _, size = _window(request)
        async with self._context.costly.turn() if size > DEFAULT_PAGE or _filters(request) else nullcontext():
            return await page(request, self._context, self._kind, mesh)

    async def read(self, request: Request, name: str) -> Response:
        mesh = await self._begin(request, "Could not retrieve a resource")
        show = shown(request, self._context, self._kind)
        found = await self._context.manager.get(self._kind.key(name, mesh))
        resource = found.with_spec(show(found.spec))
        _record_read(self._context, self._kind, mesh, name)
        kubernetes = request.query_params.get("format") in ("k8s", "kubernetes")
        return json_answer(codec.to_kubernetes(resource) if kubernetes else codec.to_universal(resource))

    async def write(self, request: Request, name: str) -> Response:
        mesh = await self._begin(request, "Could not process a resource")
        changes.check_writable(self._context)
        _check_conditions(request)
        body, key = await self._context.body(request), self._kind.key(name, mesh)
        # The largest take long to check.
        resource = await (asyncio.to_thread if _is_short(request) else self._context.costly.do)(_parse, body, key)
        dry_run = _is_dry_run(request)
        strict, allowed = _asked(request, "strict"), _asked(request, "allowWeakening")
        outcome = await changes.put(self._context, resource, strict=strict, allow_weakening=allowed, dry_run=dry_run)
        said: dict[str, Any] = {"warnings": outcome.warnings} if outcome.warnings else {}
        if outcome.absences:
            said["absences"] = outcome.absences
        if outcome.staged:
            said["stagedChange"] = True
        return json_answer(said, 201 if outcome.created else 200)

    async def delete(self, request: Request, name: str) -> Response:
        mesh = await self._begin(request, "Could not delete a resource")
        changes.check_writable(self._context)
        _check_conditions(request)
        key = self._kind.key(name, mesh)
        dry_run = _is_dry_run(request)
        allowed = _asked(request, "allowWeakening")
        deletion = await changes.delete(self._context, key, allow_weakening=allowed, dry_run=dry_run)
        return json_answer({"warnings": deletion.warnings} if deletion.warnings else {})

    async def _begin(self, request: Request, title: str) -> str:
        """Prepares every request: sets the title of errors, checks access, and returns the mesh in the path."""
        request.state.title = title
        self._context.check(request, self._kind)
        mesh: str = request.path_params.get("mesh", "")
        if mesh:
            await self._context.check_mesh(mesh)
        return mesh


def plain_route(path: str, endpoint: Callable[[Request], Awaitable[Response]], *methods: str) -> Route:
    """A route without what FastAPI finds out about one: there are hundreds, half the time that a start takes."""
    route = Route(path, endpoint, methods=methods)
    route.methods = set(methods)  # and not HEAD beside GET: as all other routes here
    return route


def shown(request: Request, context: ApiContext, kind: Kind) -> Callable[[Any], Any]:
    """Makes of a spec what the sender sees: without what is masked, unless an administrator asks for it.

    Raises:
        AccessDenied: somebody else asks for it.
    """
    if not kind.masks or request.query_params.get("reveal", "false") != "true":
        return kind.shown
    context.check_grant(request, context.settings.access.admin_resources, "what is masked")
    return lambda spec: spec


_SHORT = 1 << 16
"""Bytes of a resource that is checked in an instant."""


def _is_short(request: Request) -> bool:
    announced = request.headers.get("content-length", "")
    return announced.isdecimal() and int(announced) <= _SHORT


_CONDITIONS = ("if-match", "if-none-match", "if-unmodified-since")
_OPTIONS = {"dryrun": "dryRun", "strict": "strict", "allowweakening": "allowWeakening"}
"""What a query may ask for, by its name in small letters."""


def _check_conditions(request: Request) -> None:
    """Sees that a request asks for no less to be written than will be, by options or by conditions.

    Raises:
        Problem: it has a condition, of which there are none here, or an option that is misspelt or given twice; to pass
            over it would store what nobody wants stored (RFC 9110, section 13.1: the method must not be performed).
    """
    for name in _CONDITIONS:
        if name in request.headers:
            detail = f"this API has no versions of resources to compare with: send no {name}. Nothing was changed"
            raise Problem(412, request.state.title, detail)
    for given in request.query_params:
        name = _OPTIONS.get(given.lower().replace("-", "").replace("_", ""), given)
        if name != given:
            raise _misspelt(request, given, f"is written {name}")
        if len(request.query_params.getlist(given)) > 1 and given in _OPTIONS.values():
            raise _misspelt(request, given, "is given twice")


def _asked(request: Request, name: str) -> bool:
    """Tells whether the query asks for something.

    Raises:
        Problem: it says something else of that.
    """
    asked = request.query_params.get(name, "false")
    if asked not in ("true", "false"):
        raise _misspelt(request, name, "has to be true or false")
    return asked == "true"


def _is_dry_run(request: Request) -> bool:
    """Tells whether nothing is to be stored.

    Raises:
        Problem: the query says something else of that; to pass over it would store what nobody wants stored.
    """
    asked = request.query_params.get("dryRun")
    if asked not in (None, _ALL):
        raise _misspelt(request, "dryRun", f"has to be {_ALL}")
    return asked == _ALL


def _misspelt(request: Request, option: str, reason: str) -> Problem:
    return Problem(400, request.state.title, "Invalid option", [Violation(option, reason)])


_ALL = "All"


def ref(kind: Kind) -> str:
    """Returns the reference to the schema of `kind` in the OpenAPI document."""
    return f"#/components/schemas/{kind.name}"


def _parse(document: dict[str, object], key: Key) -> Resource[Any]:
    """The resource in a body, which has to be the one that the path names."""
    given = {"type": key.kind, "mesh": key.mesh, "name": key.name}
    violations = [
        Violation(field, f"{field} from the URL has to be the same as in body")
        for field, expected in given.items()
        if expected and document.get(field) != expected
    ]
    if violations:
        raise InvalidResource(violations)
    return codec.parse(document)


async def page(
    request: Request, context: ApiContext, kind: Kind, mesh: str | None, show: Show | None = None
) -> Response:
    """Reads one page of a list, as the query asks for it."""
    offset, size = _window(request)
    seen = shown(request, context, kind)
    name = request.query_params.get("name", "")
    if kind is DATAPLANE and _filters(request):
        whole = await context.manager.list(kind.name, mesh, name_contains=name)
        wanted = await asyncio.to_thread(lambda: [r for r in whole.items if _is_wanted(r.spec, request)])
        found = Page(tuple(wanted[offset : offset + size]), len(wanted))
    else:
        found = await context.manager.list(kind.name, mesh, name_contains=name, offset=offset, limit=size)
    _record_read(context, kind, mesh or "", "")
    items: Iterable[Any] = (
        await show(found.items) if show else (codec.to_universal(r.with_spec(seen(r.spec))) for r in found.items)
    )
    # A thousand of them take long to write out.
    return await asyncio.to_thread(lambda: _page(request, list(items), found.total, offset + size))


def _record_read(context: ApiContext, kind: Kind, mesh: str, name: str) -> None:
    """Records who reads Secrets; an empty name stands for a list."""
    if kind.admin_only:
        context.audit.record("secret read", type=kind.name, mesh=mesh, name=name)


def answer_page(request: Request, items: Sequence[Any], show: Callable[[Any], Any] = lambda item: item) -> Response:
    """Answers one page of a list that is known as a whole, as the query asks for it; `show` makes its items."""
    offset, size = _window(request)
    return _page(request, list(map(show, items[offset : offset + size])), len(items), offset + size)


def _page(request: Request, items: Sequence[Any], total: int, following: int) -> Response:
    next_url = str(request.url.include_query_params(offset=following)) if following < total else None
    return json_answer({"total": total, "items": items, "next": next_url})


def _window(request: Request) -> tuple[int, int]:
    """Returns offset and size; a size of 0 is as many as there may be."""
    size = _number(request, "size", DEFAULT_PAGE, "Invalid page size", "invalid format")
    if size > LARGEST_PAGE:
        raise _bad("size", f"invalid page size of {size}. Maximum page size is {LARGEST_PAGE}", "Invalid page size")
    return _number(request, "offset", 0, "Invalid offset", "Invalid format"), size or LARGEST_PAGE


def _filters(request: Request) -> bool:
    return "tag" in request.query_params or "gateway" in request.query_params


def _is_wanted(dataplane: DataplaneSpec, request: Request) -> bool:
    """Tells whether one inbound, or the gateway, has all the tags of `tag=name:value`.

    A value matches as a substring, `*` always.
    """
    gateway, found = request.query_params.get("gateway", "false"), dataplane.net.gateway
    if gateway != "false" and (found is None or gateway not in ("true", found.type.lower())):
        return False
    wanted = [text.partition(":") for text in request.query_params.getlist("tag")]
    return any(
        all(name in tags and (value == ANY or value in tags[name]) for name, _, value in wanted)
        for tags in dataplane.net.tag_sets
    )


def _number(request: Request, name: str, default: int, detail: str, reason: str) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise _bad(name, reason, detail)
    return int(text)


def _bad(field: str, reason: str, detail: str) -> Problem:
    return Problem(400, "Could not retrieve resources", detail, [Violation(field, reason)])
