"""Requests to the Kubernetes API that are cancelled before there is an answer leave no connection open."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kuma.base import aio
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.api.credentials import Credentials
from tests.fakes.patience import PATIENCE


async def ask(client: ApiClient) -> None:
    await client.get("/api")


async def watch(client: ApiClient) -> None:
    async for _ in client.watch("/api", "1"):
        pass


@pytest.mark.parametrize("give_up", [ask, watch])
async def test_one_that_is_cancelled_while_tls_begins_closes_its_connection(
    give_up: Callable[[ApiClient], Coroutine[Any, Any, None]],
) -> None:
    """The server says nothing to the client's greeting; the client goes on to be used."""
    greeted, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        greeted.set()
        await reader.read()
        ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, ApiClient(Credentials(address, ssl.create_default_context(), lambda: "")) as client:
        async with asyncio.timeout(PATIENCE):
            request = aio.spawn(give_up(client), name="request")
            await greeted.wait()
            await aio.stop([request])
            await ended.wait()
