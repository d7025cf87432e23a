"""The servers themselves: sockets, ports and TLS."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from kuma.api.http.server import HttpServer
from kuma.api.routes import diagnostics
from kuma.app.serving import server_certificate
from kuma.base import aio
from kuma.base.errors import Misconfigured
from kuma.base.tls.server_identity import ServerIdentity
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
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
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


async def test_tls_is_verified_and_not_older_than_1_2(tmp_path: Path) -> None:
    files = server_certificate.ensure(tmp_path, server_certificate.own_names("127.0.0.1"), datetime.now(UTC))
    server = HttpServer(app(), "127.0.0.1", 0, setting="X", tls=ServerIdentity.of(files.chain, files.key))
    task = aio.spawn(server.run(), name="server")
    url = f"https://localhost:{await server.port()}/healthy"
    trusting = ssl.create_default_context(cafile=files.ca)
    async with httpx.AsyncClient(verify=trusting, timeout=PATIENCE) as client:
        assert (await client.get(url)).status_code == 200
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
    await aio.stop([task])
