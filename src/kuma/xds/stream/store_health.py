"""Health of the store, asked of one control plane by another: gRPC's health checking protocol (`grpc.health.v1`).

Its messages have one field; they are written here as bytes, rather than by a library more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from kuma.xds.bootstrap.server_names import ServerNames
from kuma.xds.stream import questions

_SERVICE, _METHOD = "grpc.health.v1.Health", "Check"
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"
"""`HealthCheckResponse` with `status` 1 and 2."""
_ANSWER = 2.0
"""Seconds in which another control plane is to answer."""


def handler(can_use_store: Callable[[], bool]) -> Any:
    """Returns what answers whether the store can be used, to anybody: as `/ready` does."""

    async def check(_request: bytes, _context: Any) -> bytes:
        return _SERVING if can_use_store() else _NOT_SERVING

    method = grpc.unary_unary_rpc_method_handler(check, request_deserializer=None, response_serializer=None)
    return grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: method})


async def any_can_use_it(addresses: Sequence[str], names: ServerNames) -> bool:
    """Asks other control planes; those that do not answer, or show no certificate of ours, do not count.

    All have a certificate of one CA and for one name; `names` are those of our own.
    """
    return any(await asyncio.gather(*(_can_use_it(address, names) for address in addresses)))


async def _can_use_it(address: str, names: ServerNames) -> bool:
    async with questions.channel(address, names) as channel:
        try:
            answer = await channel.unary_unary(f"/{_SERVICE}/{_METHOD}", None, None)(b"", timeout=_ANSWER)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer == _SERVING)
