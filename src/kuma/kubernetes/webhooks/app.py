"""The application that the API server calls: one path for each webhook, as in the original."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kuma.api.http.bodies import BodyTooLarge, BodyTooSlow, read_body
from kuma.base.values import strict_json
from kuma.kubernetes.webhooks.review import Review

Answer = Callable[[Review], Awaitable[dict[str, Any]]]
_LARGEST = 8 << 20
"""Bytes of a request: two objects, each of which may have 1.5 MiB."""
_MOST = 4 * strict_json.MOST
"""Values of a request."""


def create_app(answers: dict[str, Answer]) -> Starlette:
    """The application with the webhooks at their paths."""
    return Starlette(routes=[Route(path, _endpoint(answer), methods=["POST"]) for path, answer in answers.items()])


def _endpoint(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            body = await read_body(request, _LARGEST)
            review = Review.of(await asyncio.to_thread(strict_json.loads, body, _MOST))
        except BodyTooLarge:
            return PlainTextResponse(f"longer than {_LARGEST} bytes", 413)
        except BodyTooSlow:
            return PlainTextResponse("the body did not come in time", 408)
        except ValueError as error:
            return PlainTextResponse(str(error), 400)
        return JSONResponse(await answer(review))

    return endpoint
