"""Who may call whom: the matrix of a mesh, part by part, and one service with its neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kuma.console import rendering
from kuma.console.context import ConsoleContext, Seen
from kuma.console.live import Live
from kuma.console.pages import reading
from kuma.console.views import calls, graph, lists
from kuma.console.views.calls import Calls, Rules
from kuma.resources.kinds import DATAPLANE
from kuma.resources.view import MeshView

_SIDE = 30
"""Rows and columns of a part of the matrix."""
_MOST_PAIRS = 500_000
"""Pairs of one picture: it would take half a second to draw more."""
_MOST = 200
"""Rows of the tables of one service."""
_ONLY = {"all": "all services", "seen": "those that were seen to call", "breaks": "those that would be refused"}


class CallPages:
    """Shows who may call whom."""

    def __init__(self, context: ConsoleContext, live: Live) -> None:
        self._context = context
        self._live = live
        self._rules: dict[str, tuple[MeshView, Rules]] = {}
        """What the last view of each mesh says: deriving it anew for every look would cost most of a page."""

    async def matrix(self, request: Request) -> Response:
        self._context.api.check(request, DATAPLANE)
        mesh = request.path_params["mesh"]
        position = self._live.position(mesh)
        seen = await reading.seen(self._context, mesh)
        query = {name: request.query_params.get(name, "")[:100] for name in ("from", "to", "only", "row", "column")}
        shown = await self._context.api.costly.do(self._matrix, seen, query)
        values = {"mesh": mesh, "query": query, "only": _ONLY, "states": calls.STATES, "live": position, **shown}
        return rendering.page(request, self._context, "calls.html", values)

    async def service(self, request: Request) -> Response:
        self._context.api.check(request, DATAPLANE)
        mesh, name = request.path_params["mesh"], request.path_params["service"]
        position = self._live.position(mesh)
        seen = await reading.seen(self._context, mesh)
        incoming, outgoing = await self._context.api.costly.do(lambda: self._calls(seen).of_service(name))
        values = {
            "mesh": mesh,
            "service": name,
            "incoming": incoming,
            "outgoing": outgoing,
            "most": _MOST,
            "graph": graph.graph(name, incoming, outgoing),
            "states": calls.STATES,
            "live": position,
        }
        return rendering.page(request, self._context, "service.html", values)

    def _calls(self, seen: Seen) -> Calls:
        mesh = seen.view.name
        known = self._rules.get(mesh)
        if known is None or known[0] is not seen.view:
            self._rules[mesh] = known = seen.view, Rules.of(seen.view)
        return Calls.of(seen.view, known[1], seen.callers)

    def _matrix(self, seen: Seen, query: Mapping[str, str]) -> dict[str, Any]:
        found = self._calls(seen)
        callers: Sequence[str] = [one for one in found.callers if query["from"].lower() in one.lower()]
        called: Sequence[str] = [one for one in found.called if query["to"].lower() in one.lower()]
        callers, called = _narrowed(found, callers, called, query["only"])
        rows = lists.page(callers, reading.number(query["row"]), _SIDE)
        columns = lists.page(called, reading.number(query["column"]), _SIDE)
        is_large = len(callers) > _SIDE or len(called) > _SIDE
        is_too_large = len(callers) * len(called) > _MOST_PAIRS
        return {
            "rows": rows,
            "columns": columns,
            "matrix": calls.matrix(found, rows.items, columns.items),
            "breaking": sorted(found.breaking),
            "picture": list(calls.picture(found, callers, called)) if is_large and not is_too_large else [],
            "is_too_large": is_too_large,
            "services": len(found.rules.services),
            "counts": Counter(found.relation(*pair).state for pair in found.seen),
        }


def _narrowed(
    found: Calls, callers: Sequence[str], called: Sequence[str], only: str
) -> tuple[Sequence[str], Sequence[str]]:
    """Leaves those that have something to do with what was seen, or with what would be refused."""
    pairs = found.breaking if only == "breaks" else found.seen.keys() if only == "seen" else None
    if pairs is None:
        return callers, called
    calling, answering = {caller for caller, _ in pairs}, {service for _, service in pairs}
    return [one for one in callers if one in calling], [one for one in called if one in answering]
