"""Reads the host name from requests; a malformed one is answered, not failed on."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response

from kuma.api.http import errors, steps
from kuma.api.http.errors import Problem
from kuma.api.http.steps import Proceed
from kuma.base.values import addresses

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]*))(?::[0-9]{0,5})?", re.ASCII)


def host_of(request: Request) -> str | None:
    """Returns the name or address in the `Host` header, in lower case; empty without one, None if it makes no sense."""
    found = _HOST.fullmatch(request.headers.get("host", ""))
    if found is None or len(found.group()) > 300:
        return None
    literal = found["v6"]
    if literal is not None:
        return literal.lower() if addresses.parse(literal) is not None else None
    return found["name"].lower()


class _ByPath:
    """Has redirects lead to paths of the server that the client talks to.

    The framework's lead to whatever `Host` says, and in the clear if a proxy before us has taken HTTPS off, with the
    client's token.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def by_path(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, _path(value) if name == b"location" else value) for name, value in message["headers"]
                ]
            await send(message)

        await self._app(scope, receive, by_path)


def _path(location: bytes) -> bytes:
    parts = urlsplit(location)
    path = b"/" + parts.path.lstrip(b"/")  # two slashes would begin another host
    return b"?".join(filter(None, (path, parts.query))) if parts.netloc else location


def install(app: FastAPI) -> None:
    """Answer requests whose host or path makes no sense before anything builds a URL of them, and redirect by paths."""
    app.add_middleware(_ByPath)

    async def sensible(request: Request, proceed: Proceed) -> Response | None:
        if host_of(request) is None:
            return _refused("the Host header is neither a name nor an address")
        if not request.scope["path"].startswith("/"):
            return _refused("the path does not begin with a slash")
        await proceed()
        return None

    steps.install(app, sensible)


def _refused(detail: str) -> Response:
    return errors.answer(Problem(400, "Bad Request", detail), "Bad Request")
