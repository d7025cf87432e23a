"""Serves `POST /withdraw`, with which a proxy announces its end, so that its callers are sent elsewhere before it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response

from kuma.api.http.bodies import BodyTooLarge, BodyTooSlow, json_answer, parse_object, read_body
from kuma.base.errors import AccessDenied, InvalidResource, NotFound, Unauthenticated, Unavailable

Withdraw = Callable[[str, str, str, str, str], Awaitable[None]]
"""Mesh and name of a Dataplane, the token of its proxy, the IP address that says it, and what proves that it may."""

_FIELDS = ("mesh", "name", "dataplaneToken", "farewell")
_LARGEST_BODY = 16 * 1024
_STATUS: dict[type[Exception], int] = {
    BodyTooLarge: 413,
    BodyTooSlow: 408,
    InvalidResource: 400,
    Unauthenticated: 401,
    AccessDenied: 403,
    NotFound: 404,
    Unavailable: 503,
}


def install(app: FastAPI, withdraw: Withdraw, on_refusal: Callable[[Request, Exception], None]) -> None:
    """Serve it in `app`; `on_refusal` is told who was refused, and why."""

    @app.post("/withdraw")
    async def withdrawal(request: Request) -> Response:
        try:
            asked = parse_object(await read_body(request, _LARGEST_BODY))
            mesh, name, token, proof = given = [asked.get(field, "") for field in _FIELDS]
            if not all(isinstance(value, str) for value in given):
                raise InvalidResource.of("", f"{', '.join(_FIELDS)} have to be strings")
            await withdraw(mesh, name, token, request.client.host if request.client else "", proof)
        except tuple(_STATUS) as error:
            if isinstance(error, Unauthenticated | AccessDenied):
                on_refusal(request, error)
            text = str(error) or "the body is too long or came too slowly"
            status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
            return Response(text, status, media_type="text/plain")
        return json_answer({})
