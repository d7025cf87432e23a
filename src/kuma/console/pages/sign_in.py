"""Signing in with a user token, and out."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from kuma.api.http.access_control import AUTHENTICATED
from kuma.base.errors import InvalidResource, Unauthenticated
from kuma.console import guard, rendering
from kuma.console.context import ConsoleContext

_OWN = re.compile(r"/gui/[^\\\x00-\x20]*")
_MOST = 16 * 1024


class SignIn:
    """Begins and ends sessions."""

    def __init__(self, context: ConsoleContext) -> None:
        self._context = context

    async def show(self, request: Request) -> Response:
        return self._page(request, _next(request.query_params.get("next", "")), "")

    async def enter(self, request: Request) -> Response:
        """Begins a session. Nobody is asked for a proof: there is no session yet whose it would be."""
        fields = await guard.form(request, _MOST, proven=False)
        token, following = "".join(fields.get("token", "").split()), _next(fields.get("next", ""))
        try:
            await self._context.api.tokens.verify(token)
            cookie = await self._context.sessions.seal(token)
        except (Unauthenticated, InvalidResource) as error:
            return self._page(request, following, str(error), 401)
        answer = RedirectResponse(following, 303)
        _set_cookie(answer, request, cookie)
        return answer

    async def leave(self, request: Request) -> Response:
        """Ends the session; one that does not hold any more needs no proof that it is wanted."""
        await guard.form(request, _MOST, proven=guard.visitor(request).has_session)
        answer = RedirectResponse(rendering.url("sign-in"), 303)
        _set_cookie(answer, request, "", max_age=0)
        return answer

    def _page(self, request: Request, following: str, problem: str, status: int = 200) -> Response:
        values = {"next": following, "problem": problem or guard.visitor(request).problem}
        return rendering.page(request, self._context, "sign_in.html", values, status)


def turned_away(request: Request) -> Response | None:
    """Leads somebody who is not known to where one signs in; None if that would not help."""
    if request.method not in ("GET", "HEAD") or AUTHENTICATED in guard.visitor(request).caller.groups:
        return None
    if request.headers.get("accept", "").startswith("text/event-stream"):
        return None
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(rendering.url("sign-in", next=f"{request.scope['path']}{query}"), 303)


def _next(wanted: str) -> str:
    """Returns the page to go on to: one of ours, whatever was asked for."""
    return wanted if _OWN.fullmatch(wanted) else rendering.url("")


def _set_cookie(answer: Response, request: Request, value: str, max_age: int | None = None) -> None:
    """Has a browser keep a session until it is closed, for pages of the console only, and out of reach of scripts."""
    secure = "https" in (request.url.scheme, request.headers.get("origin", "").partition(":")[0])
    answer.set_cookie(
        guard.cookie_name(request), value, max_age, path=guard.PATH, httponly=True, samesite="strict", secure=secure
    )
