"""The servers themselves: sockets, ports and TLS."""

import asyncio
import contextlib
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Counter

from kuma.api.http.server import HttpServer
from kuma.api.routes import diagnostics
from kuma.app.serving import server_certificate
from kuma.base import aio
from kuma.base.errors import Misconfigured
from kuma.base.system import sockets
from kuma.base.tls.server_identity import ServerIdentity
from kuma.base.tls.trust import NOBODY
from tests.fakes.patience import PATIENCE


def app(ready: bool = True) -> Any:
    registry = CollectorRegistry()
    Counter("calls", "Calls.", registry=registry).inc(3)
    return diagnostics.create_app(registry, lambda: "" if ready else "the database is away")


async def test_metrics_and_health() -> None:
    for ready in (True, False):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app(ready)), base_url="http://x", timeout=PATIENCE
        ) as client:
            assert "calls_total 3.0" in (await client.get("/metrics")).text
            assert (await client.get("/healthy")).status_code == 200
            answer = await client.get("/ready")
            expected = (200, "ready\n") if ready else (503, "not ready: the database is away\n")
            assert (answer.status_code, answer.text) == expected


async def test_a_server_stops_when_it_is_told_to_and_frees_its_port() -> None:
    port = 0
    for _ in range(2):
        server = HttpServer(app(), "127.0.0.1", port, setting="X")
        task = aio.spawn(server.run(), name="server")
        port = await server.port()
        async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/healthy")).status_code == 200
        await aio.stop([task])
        assert task.done()


async def test_a_port_in_use_is_said_with_the_setting() -> None:
    first = HttpServer(app(), "127.0.0.1", 0, setting="X")
    task = aio.spawn(first.run(), name="server")
    port = await first.port()
    with pytest.raises(Misconfigured, match=f"cannot listen on 127.0.0.1:{port}: .*set KUMA_API_SERVER_HTTP_PORT"):
        await HttpServer(app(), "127.0.0.1", port, setting="KUMA_API_SERVER_HTTP_PORT").run()
    await aio.stop([task])


async def test_who_is_being_answered_while_it_stops_is_told_so() -> None:
    """With the shape of all errors, and that one may try again; before, it was a plain `500 Internal Server Error`."""
    began = asyncio.Event()

    async def endless(_scope: Any, _receive: Any, _send: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    server = HttpServer(endless, "127.0.0.1", 0, setting="X")
    task = aio.spawn(server.run(), name="server")
    async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
        asking = aio.spawn(client.put(f"http://127.0.0.1:{await server.port()}/meshes/default"), name="asking")
        async with asyncio.timeout(PATIENCE):
            await began.wait()
        await aio.stop([task])
        answer = await asking
    assert (answer.status_code, answer.json()["title"]) == (503, "Service unavailable")
    assert "look whether" in answer.json()["detail"]
    assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")


async def test_tls_is_verified_and_not_older_than_1_2(tmp_path: Path) -> None:
    files = server_certificate.ensure(tmp_path, server_certificate.own_names("127.0.0.1"), datetime.now(UTC))
    server = HttpServer(app(), "127.0.0.1", 0, setting="X", tls=ServerIdentity.of(files.chain, files.key))
    task = aio.spawn(server.run(), name="server")
    url = f"https://localhost:{await server.port()}/healthy"
    trusting = ssl.create_default_context(cafile=files.ca)
    async with httpx.AsyncClient(verify=trusting, timeout=PATIENCE) as client:
        assert (await client.get(url)).status_code == 200
    async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
    await aio.stop([task])


async def test_one_that_is_shut_leaves_connections_to_the_other_at_the_same_port() -> None:
    """As workers do, one of which is cut off: idle connections end, what is being answered is, and who comes waits."""
    async with contextlib.AsyncExitStack() as stack:
        shared = stack.enter_context(sockets.listening("127.0.0.1", 0, "X"))
        first, second = (Numbered(number, shared) for number in (1, 2))
        second.server.shut(True)
        tasks = [aio.spawn(each.server.run(), name="server") for each in (first, second)]
        stack.push_async_callback(aio.stop, tasks)
        url = f"http://127.0.0.1:{await first.server.port()}/"
        idle, busy, late = [
            await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE, verify=NOBODY, trust_env=False))
            for _ in range(3)
        ]
        assert (await idle.get(url)).text == "1"
        first.may_answer.clear()
        answering = aio.spawn(busy.get(url), name="request")
        await first.asked.wait()
        first.server.shut(True)
        waiting = aio.spawn(idle.get(url), name="request")  # by another connection: its own has ended
        second.server.shut(False)
        assert (await waiting).text == "2"
        first.may_answer.set()
        answer = await answering
        assert (answer.text, answer.headers["connection"]) == ("1", "close")
        assert (await busy.get(url)).text == "2"
        second.server.shut(True)
        first.server.shut(False)
        assert (await late.get(url)).text == "1"


class Numbered:
    """A server that says its number, when it may, at a port that it shares."""

    def __init__(self, number: int, shared: socket.socket) -> None:
        self._number = number
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.server = HttpServer(self._answer, "127.0.0.1", 0, setting="X", listen=lambda *_: shared.dup())

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if not self.may_answer.is_set():
            self.asked.set()
            await self.may_answer.wait()
        await PlainTextResponse(str(self._number))(scope, receive, send)
