"""Prometheus reads the metrics of a real Envoy: by mutual TLS and a permission, or in plaintext if asked."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from demo.processes import free_ports
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.integration import clients
from tests.integration.sidecars import Sidecars, until

WEB = ALLOW_ALL.replace(
    "destinations: [{match: {kuma.io/service: '*'}}]", "destinations: [{match: {kuma.io/service: web}}]"
)
(PORT,) = free_ports(1)


def mesh_with(conf: str) -> str:
    metrics = f"metrics: {{enabledBackend: p, backends: [{{name: p, type: prometheus, conf: {{{conf}}}}}]}}"
    return MTLS.replace("name: default,", f"name: default, {metrics},")


@pytest.fixture
def declared() -> tuple[str, ...]:
    return mesh_with(f"port: {PORT}, path: /m"), ALLOW_ALL


async def get(path: str, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1", method: str = "GET") -> bytes:
    """What 127.0.0.2 answers at the port of the metrics; empty if it closes the connection."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.2", PORT, ssl=tls, local_addr=(source, 0))
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        found = await reader.read()
        writer.close()
    except OSError:
        return b""
    return found


async def test_prometheus_reads_metrics(cp: Running, mesh: Sidecars, tmp_path: Path) -> None:
    await mesh.start("web", address="127.0.0.2")
    await mesh.converged()
    prometheus = await clients.with_leaf_of(clients.own_authority(cp), tmp_path, "spiffe://default/prometheus")
    stranger = clients.without_certificate()

    async def read() -> bool:
        return (await get("/m", prometheus)).startswith(b"HTTP/1.1 200 OK")

    await until("all threads of the Envoy serve them", read)
    assert b"\nenvoy_" in await get("/m", prometheus)
    assert await get("/m", stranger) == b""
    assert await get("/m") == b""  # plaintext, from another address
    assert (await get("/m", source="127.0.0.2")).startswith(b"HTTP/1.1 200 OK")  # the proxy's own machine
    for path in ("/stats", "/config_dump", "/quitquitquit", "/m/../config_dump"):
        assert (await get(path, prometheus)).startswith(b"HTTP/1.1 403")
    assert (await get("/m", prometheus, method="POST")).startswith(b"HTTP/1.1 403")

    await cp.apply(WEB)

    async def denied() -> bool:
        return (await get("/m", prometheus)).startswith(b"HTTP/1.1 403")

    await until("a permission is needed", denied)

    await cp.apply(mesh_with(f"port: {PORT}, path: /m, skipMTLS: true"))

    async def plain() -> bool:
        return (await get("/m")).startswith(b"HTTP/1.1 200 OK")

    await until("anybody reads them if that is asked for", plain)

    async def nothing_else() -> bool:
        return (await get("/config_dump")).startswith(b"HTTP/1.1 404")

    await until("nothing else is there", nothing_else)
