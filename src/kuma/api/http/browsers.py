"""Tells browsers, in every answer, what they may do with it: not keep it, not guess what it is, show it in no frame.

Answers hold Secrets and tokens, which no cache on the way may keep (RFC 9111 §5.2.2.5). In a frame, a page of another
site has the administrator of this machine press the buttons of `/docs` without knowing it.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class _Told:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(more for more in _HEADERS if more[0] not in given)]
            await send(message)

        await self._app(scope, receive, told)


def install(app: FastAPI) -> None:
    """Have every answer of `app` say so, unless it says something else already."""
    app.add_middleware(_Told)
