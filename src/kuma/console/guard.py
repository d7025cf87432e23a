"""Finds out who looks at a page, turns away what other sites have browsers ask, and tells browsers what to load.

A browser sends a cookie along whoever makes it ask, so what changes something has to come from a page of ours: by the
browser's own word (Origin, Sec-Fetch-Site), and by a proof that only our pages hold. See OWASP's Cross-Site Request
Forgery Prevention, and W3C's Fetch Metadata Request Headers.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from kuma.api.http import access_control
from kuma.api.http.access_control import ADMIN, ANONYMOUS, AUTHENTICATED, Caller
from kuma.api.http.bodies import BodyTooLarge, BodyTooSlow, read_body
from kuma.api.http.errors import Problem
from kuma.base.audit import ACTOR
from kuma.base.errors import AccessDenied, KumaError
from kuma.console.context import ConsoleContext, Visitor

PATH = "/gui"
_SAFE = ("GET", "HEAD")
_MOST_FIELDS = 20
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing is loaded from elsewhere, nothing that stands in a page is run, and no other page frames ours."""
_HEADERS = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
)


def cookie_name(request: Request) -> str:
    """Returns the name of the session's cookie: another one over HTTPS, so that plaintext cannot replace it."""
    return "__Secure-kuma-session" if request.url.scheme == "https" else "kuma-session"


def visitor(request: Request) -> Visitor:
    """Returns who looks at a page, as `Guard` has found out."""
    found: Visitor = request.state.visitor
    return found


class Guard:
    """Wraps the console: every request has its visitor, and every answer the headers that protect it."""

    def __init__(self, app: Any, context: ConsoleContext) -> None:
        self._app = app
        self._context = context
        self._local_proof = secrets.token_hex(32)
        """Of this machine's administrator, who needs no session: it holds for as long as this process runs."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        found = await self._visitor(request)
        request.state.visitor, request.state.caller = found, found.caller
        ACTOR.set(str(found.caller))

        async def protected(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                kept = _HEADERS if b"cache-control" in given else (*_HEADERS, ("cache-control", "no-store"))
                message["headers"] = [*message["headers"], *((n.encode(), v.encode()) for n, v in kept)]
            await send(message)

        await self._app(scope, receive, protected)

    async def _visitor(self, request: Request) -> Visitor:
        """Identifies by a session, or else as the API does. Who cannot be identified is anonymous, with the reason."""
        cookie = request.cookies.get(cookie_name(request))
        try:
            if cookie and "authorization" not in request.headers:
                session = await self._context.sessions.open(cookie)
                name, groups = await self._context.api.tokens.verify(session.token)
                return Visitor(Caller(name, (*groups, AUTHENTICATED)), session.proof, has_session=True)
            local_admins = self._context.api.settings.local_admins
            caller = await access_control.identify(request, self._context.api.tokens.verify, local_admins)
            return Visitor(caller, self._local_proof if caller is ADMIN else "")
        except KumaError as error:  # it does not hold, another site asks, or the database is away
            return Visitor(ANONYMOUS, problem=str(error))


def check_origin(request: Request) -> None:
    """Checks that a request that changes something comes from a page of this server.

    Raises:
        AccessDenied: it comes from elsewhere, or the browser does not say.
    """
    if request.method in _SAFE:
        return
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    # What comes in the clear may have come to a proxy over HTTPS, which has taken that off.
    own = [f"{scheme}://{host}" for scheme in {request.url.scheme, "https"}]
    site = request.headers.get("sec-fetch-site")
    if (origin not in own and not (origin is None and site == "same-origin")) or site not in (None, "same-origin"):
        raise AccessDenied("this was not sent from a page of the console")


async def form(request: Request, limit: int, *, proven: bool = True) -> Mapping[str, str]:
    """Returns the fields of a form that was sent from a page of ours; the last one of those called the same.

    Raises:
        AccessDenied: it was not sent from there.
        Problem: it is too long, or no form.
    """
    check_origin(request)
    try:
        body = await read_body(request, limit)
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except BodyTooLarge:
        raise Problem(413, "Too long", f"the form is longer than {limit} bytes") from None
    except BodyTooSlow:
        raise Problem(408, "Too slow", "the form did not come in time") from None
    except ValueError:
        raise Problem(400, "Bad request", "this is no form") from None
    if proven and not _is_proven(visitor(request), fields.pop("proof", "")):
        raise AccessDenied("this page is out of date: load it again, and repeat what you did")
    return fields


def _is_proven(found: Visitor, proof: str) -> bool:
    return bool(found.proof) and hmac.compare_digest(proof.encode(), found.proof.encode())
