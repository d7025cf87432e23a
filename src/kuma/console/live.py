"""Tells open pages that there is something new (server-sent events, WHATWG HTML 9.2); they ask for it as ever.

A stream carries a count and nothing else, so it shows nobody what they may not see. It ends after a minute, and whoever
opens it again is identified again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from kuma.api.http.errors import Problem
from kuma.console import guard
from kuma.console.context import ConsoleContext
from kuma.resources.kinds import DATAPLANE

LONGEST = 60.0
"""Seconds that a stream lasts."""
_PAUSE = 0.5
"""Seconds between two events: what happens in between is told together."""
_AGAIN = 1000
"""Milliseconds after which a browser opens a stream again."""
_MOST = 200
"""Open streams of one control plane."""
_MOST_EACH = 20
"""Of one user: a few do not take them all."""


class Live:
    """Serves the streams."""

    def __init__(self, context: ConsoleContext) -> None:
        self._context = context
        self._open = Counter[str]()
        """Streams by the names of users."""

    async def stream(self, request: Request) -> Response:
        """Answers with a stream of what happens after `since`: in `mesh`, or in all meshes.

        Raises:
            Problem: too many are open.
        """
        self._context.api.check(request, DATAPLANE)
        user = guard.visitor(request).caller.name
        if self._open.total() >= _MOST:
            raise Problem(503, "Service unavailable", f"more than {_MOST} pages are open")
        if self._open[user] >= _MOST_EACH:
            raise Problem(429, "Too Many Requests", f"you have more than {_MOST_EACH} pages open")
        mesh = request.query_params.get("mesh", "")
        since = request.headers.get("last-event-id", request.query_params.get("since", ""))
        return StreamingResponse(self._events(user, mesh, since), media_type="text/event-stream")

    async def _events(self, user: str, mesh: str, since: str) -> AsyncIterator[str]:
        self._open[user] += 1
        try:
            yield f"retry: {_AGAIN}\n\n"
            async with asyncio.timeout(LONGEST):
                while True:
                    if since != (position := self.position(mesh)):
                        since = position
                        yield f"id: {position}\ndata: {position}\n\n"
                        await asyncio.sleep(_PAUSE)
                    await self._context.followed.more_than(self._count(position), mesh)
        except TimeoutError:
            return
        finally:
            self._open -= Counter([user])  # and forget those who have none

    def position(self, mesh: str = "") -> str:
        """Returns how far what is shown now has come; counts of different control planes are not comparable."""
        return f"{self._context.api.instance}:{self._context.followed.changes(mesh)}"

    @staticmethod
    def _count(position: str) -> int:
        return int(position.rpartition(":")[2])
