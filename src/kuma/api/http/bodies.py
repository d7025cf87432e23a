"""Bodies on their way in and out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from kuma.base.errors import InvalidResource
from kuma.base.values import strict_json


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answers JSON as the original prints it: one space of indent and a final newline.

    What no encoding can carry is shown as `?`: nothing that is stored may keep a whole list from being answered.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return Response(text.encode(errors="replace"), status, headers, media_type="application/json")


class BodyTooLarge(Exception):
    """The body is longer than allowed; the rest of it was not read."""


class BodyTooSlow(Exception):
    """The body does not come."""


SLOWEST_BODY = 30.0
"""Seconds that a body may take."""


async def read_body(request: Request, limit: int) -> bytes:
    """Returns the request's body.

    Raises:
        BodyTooLarge: it has more than `limit` bytes, by its own account or in fact.
        BodyTooSlow: it has not come within `SLOWEST_BODY`, or never will, because the client has gone away.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise BodyTooLarge
    body = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise BodyTooLarge
    except (TimeoutError, ClientDisconnect):
        raise BodyTooSlow from None
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in `body`.

    Raises:
        InvalidResource: it is no object, or what `strict_json` refuses.
    """
    try:
        found = strict_json.loads(body)
    except ValueError as error:
        raise InvalidResource.of("", f"is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidResource.of("", "has to be a JSON object")
    return found
