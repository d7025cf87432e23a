"""Closes connections whose requests are given up while TLS begins on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""What httpcore tells of a request, step by step (https://www.encode.io/httpcore/extensions/#trace)."""


def closed() -> Trace:
    """Returns the trace of one request, which closes the connection that was opened for it if TLS does not begin.

    httpcore 1.0 does that itself after an error, but not if the request is cancelled: the connection would stay open,
    and be nobody's, until the server ends it.
    """
    opened: list[Any] = []

    async def told(event: str, details: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(details["return_value"])
        elif event == "connection.start_tls.failed":
            await opened[-1].aclose()

    return told
