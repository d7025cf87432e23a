"""What a change would do to whom, before it is made; and making it, with the rights of whoever asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

import yaml
from starlette.requests import Request
from starlette.responses import Response

from kuma.api import changes
from kuma.api.http import errors
from kuma.api.http.errors import Problem
from kuma.base.errors import InvalidResource, KumaError, Violation
from kuma.console import guard, rendering
from kuma.console.context import ConsoleContext
from kuma.console.pages import reading
from kuma.foresight import preview, suggestions
from kuma.foresight.preview import Changes, Preview
from kuma.resources import codec, kinds
from kuma.resources.kinds import DATAPLANE
from kuma.resources.resource import Resource

_MOST = 1000
"""Resources of one text."""
_LONGEST = 1 << 18
"""Bytes of one text: YAML is read slowly, and who may only look may preview, too."""


_CHANGED_HERE = (kinds.MESH, kinds.DATAPLANE, kinds.TRAFFIC_PERMISSION, kinds.MESH_TRAFFIC_PERMISSION)
"""Kinds of which one may be edited and deleted by its name."""
_BREAKS = (Violation("", "somebody would be refused: say that it is to be applied all the same"),)


class Applied(NamedTuple):
    """What has become of one resource: a word, what is said of it, and what is wrong with it."""

    resource: Resource[Any]
    became: str
    warnings: Sequence[str] = ()
    violations: Sequence[Violation] = ()
    error: str = ""


class PreviewPage:
    """Previews a change that somebody has written, and makes it."""

    def __init__(self, context: ConsoleContext) -> None:
        self._context = context

    async def show(self, request: Request) -> Response:
        """Shows the form: with the Mesh in it to begin with, with what one wants to change, or with what is suggested.

        What one wants to delete is previewed at once.
        """
        self._context.api.check(request, DATAPLANE)
        mesh, query = request.path_params["mesh"], request.query_params
        if "delete" in query:
            doomed = self._named(request, query["delete"])
            return self._page(
                request, "", doomed=doomed, previews=[await self._preview(mesh, {doomed.key: None}, None)]
            )
        if "suggest" in query:
            seen = await reading.seen(self._context, mesh)
            suggest = suggestions.suggested
            found = await self._context.api.costly.do(suggest, seen.view, seen.callers, kinds.MESH_TRAFFIC_PERMISSION)
            return self._page(request, _text(found.permissions), suggested=True)
        found_here = self._named(request, query.get("edit") or f"{kinds.MESH.name}/{mesh}")
        shown = kinds.by_name(found_here.key.kind).shown(found_here.spec)
        return self._page(request, _text([found_here.with_spec(shown)]))

    def _named(self, request: Request, text: str) -> Resource[Any]:
        """Returns the resource that a page is asked for, as `TYPE/NAME`.

        Raises:
            Problem: 404, there is none, or it is of a kind that is not changed here.
        """
        kind_name, _, name = text.partition("/")
        mesh = request.path_params["mesh"]
        view = reading.view(self._context, mesh)
        kind = next((one for one in _CHANGED_HERE if one.name == kind_name), None)
        found = view.find(kind.key(name, mesh)) if kind is not None else None
        if kind is None or found is None or found.name != name:
            raise Problem(404, "Not found", f'There is no "{text[:200]}" in mesh "{mesh[:100]}" that is changed here.')
        api = self._context.api
        api.settings.access.check(api.caller(request), kind, "GET")
        return found

    async def judge(self, request: Request) -> Response:
        """Previews what was sent, or applies it."""
        api = self._context.api
        api.settings.access.check(api.caller(request), DATAPLANE, "GET")
        reading.view(self._context, request.path_params["mesh"])
        fields = await guard.form(request, 3 * _LONGEST)  # percent signs take three for one
        if fields.get("delete"):
            return await self._delete(request, self._named(request, fields["delete"]), fields)
        text = fields.get("text", "").replace("\r\n", "\n")
        within = fields.get("within", "")
        try:
            lately = preview.within(within)
            resources = await self._context.api.costly.do(_parsed, text)
            breaks = preview.by_mesh(resources, ())
            preview.check_extent(breaks)
        except InvalidResource as error:
            return self._page(request, text, violations=error.violations, status=400)
        previews = [await self._preview(mesh, some, lately) for mesh, some in sorted(breaks.items())]
        if fields.get("do") != "apply":
            return self._page(request, text, within, previews=previews)
        if any(one.breaks for one in previews) and fields.get("anyway") != "yes":
            return self._page(request, text, within, previews=previews, violations=_BREAKS, status=409)
        applied = [one async for one in self._apply(request, resources, fields)]
        failed = any(one.became == "failed" for one in applied)
        return self._page(request, text, applied=applied, status=409 if failed else 200)

    async def _delete(self, request: Request, doomed: Resource[Any], fields: Mapping[str, str]) -> Response:
        previews = [await self._preview(request.path_params["mesh"], {doomed.key: None}, None)]
        if previews[0].breaks and fields.get("anyway") != "yes":
            return self._page(request, "", doomed=doomed, previews=previews, violations=_BREAKS, status=409)
        api = self._context.api
        try:
            api.settings.access.check(api.caller(request), kinds.by_name(doomed.key.kind), "DELETE")
            changes.check_writable(api)
            deletion = await changes.delete(api, doomed.key, allow_weakening=fields.get("weaken") == "yes")
        except (KumaError, Problem) as error:
            return self._page(
                request, "", doomed=doomed, previews=previews, applied=[_failed(doomed, error)], status=409
            )
        return self._page(request, "", doomed=doomed, applied=[Applied(doomed, "deleted", deletion.warnings)])

    async def _preview(self, mesh: str, some: Changes, within: timedelta | None) -> Preview:
        view = self._context.api.observation.view(mesh)
        if view.mesh is None:
            return Preview(mesh=mesh, breaks=False)
        seen = await reading.seen(self._context, mesh)
        known = replace(seen.known, within=within)
        return await self._context.api.costly.do(preview.preview, seen.view, some, known)

    async def _apply(self, request: Request, resources: Iterable[Resource[Any]], fields: Mapping[str, str]) -> Any:
        """Applies one after the other, and no more after one that fails."""
        api, failed = self._context.api, False
        allowed = fields.get("weaken") == "yes"
        for resource in resources:
            if failed:
                yield Applied(resource, "not tried")
                continue
            try:
                api.settings.access.check(api.caller(request), kinds.by_name(resource.key.kind), "PUT")
                changes.check_writable(api)
                outcome = await changes.put(api, resource, allow_weakening=allowed)
                yield Applied(resource, "created" if outcome.created else "configured", outcome.warnings)
            except (KumaError, Problem) as error:
                yield _failed(resource, error)
                failed = True

    def _page(
        self,
        request: Request,
        text: str,
        within: str = "",
        *,
        previews: Sequence[Preview] = (),
        applied: Sequence[Applied] = (),
        violations: Sequence[Violation] = (),
        status: int = 200,
        doomed: Resource[Any] | None = None,
        suggested: bool = False,
    ) -> Response:
        """Shows the page; `doomed` is what is to be deleted, if anything is, and `suggested` says that the text is."""
        values = {
            "mesh": request.path_params["mesh"],
            "text": text,
            "within": within,
            "doomed": doomed,
            "suggested": suggested,
            "previews": previews,
            "applied": applied,
            "violations": violations,
            "asked": bool(previews or applied or violations),
        }
        return rendering.page(request, self._context, "preview.html", values, status)


def _failed(resource: Resource[Any], error: Exception) -> Applied:
    told = errors.problem(error, "Could not process a resource")
    return Applied(resource, "failed", violations=told.violations, error=told.detail)


def _text(resources: Iterable[Resource[Any]]) -> str:
    return yaml.safe_dump_all(map(codec.as_declared, resources), sort_keys=False, allow_unicode=True)


def _parsed(text: str) -> list[Resource[Any]]:
    """Returns the resources in a text.

    Raises:
        InvalidResource: one is not valid; the text says which.
    """
    if len(text.encode()) > _LONGEST:
        raise InvalidResource.of("", f"this is longer than {_LONGEST:,} bytes; kumactl preview and apply take more")
    found = []
    for index, document in enumerate(codec.documents(text)):
        if index >= _MOST:
            raise InvalidResource.of("", f"these are more than {_MOST:,} resources")
        try:
            found.append(codec.parse(document))
        except InvalidResource as error:
            where = f"resource {index + 1}"
            raise InvalidResource(
                Violation(f"{where}: {v.field}" if v.field else where, v.reason) for v in error.violations
            ) from None
    if not found:
        raise InvalidResource.of("", "there is no resource in it")
    return found
