"""Reads the host name from requests; a malformed one is answered, not failed on."""

from __future__ import annotations

import re

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


def install(app: FastAPI) -> None:
    """Answer requests whose host or path makes no sense before anything builds a URL of them."""

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
