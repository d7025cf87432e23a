"""Permissions by tags act on connections that are open, too: Envoy keeps the ones to the called proxy for long."""

import asyncio
import contextlib
import re
from typing import Any

import pytest

from demo.processes import free_ports
from kuma.policy.succession import Stage
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.fakes.patience import PATIENCE
from tests.integration.changes import edit_inbounds, tagged
from tests.integration.sidecars import Sidecars, traffic, until

ALL = "{type: MeshTrafficPermission, mesh: default, name: all, spec: {targetRef: {kind: Mesh}, from: ["
MESH_ALLOW = "{targetRef: {kind: Mesh}, default: {action: Allow}}"
DENY_DEV = "{targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}}"
ALLOW_PROD = "{targetRef: {kind: MeshSubset, tags: {env: prod}}, default: {action: Allow}}"


@pytest.fixture
def xds_server() -> dict[str, Any]:
    return {"connection_drain": "6s"}


def permission(*items: str) -> str:
    return f"{ALL}{', '.join(items)}]}}}}"


async def test_a_new_refusal_by_tag_ends_what_is_open(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, permission(MESH_ALLOW))
    await mesh.start("backend")
    await mesh.start("store", protocol="tcp")
    web = await mesh.start("web", calls=("backend", "store"), tags=", env: dev")
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", web.outbounds["store"])
    writer.write(b"hello")
    assert await reader.read(100) == b"store:hello"
    await cp.apply(permission(MESH_ALLOW, DENY_DEV))
    await until("web is refused, though its Envoy had a connection", lambda: web.is_refused("backend"))
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            assert await reader.read(100) == b""
    writer.close()


async def test_a_new_admission_by_tag_admits(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, permission(DENY_DEV))
    await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",), tags=", env: prod")
    await until("nobody is admitted", lambda: web.is_refused("backend"))
    await cp.apply(permission(DENY_DEV, ALLOW_PROD))
    await until("web is admitted", lambda: web.reaches("backend"))


async def test_another_tag_of_a_caller_counts_on_open_connections(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, permission(MESH_ALLOW, DENY_DEV))
    await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",), tags=", env: prod")
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    await edit_inbounds(cp, web, lambda inbound: (tagged(inbound, {"env": "dev"}),))
    await until("web is refused", lambda: web.is_refused("backend"))


async def test_a_service_that_a_caller_gets_counts_on_open_connections(cp: Running, mesh: Sidecars) -> None:
    deny_api = "{targetRef: {kind: MeshService, name: api}, default: {action: Deny}}"
    await cp.apply(MTLS, permission(MESH_ALLOW, deny_api))
    web, _ = await mesh.pair()
    (port,) = free_ports(1)
    await edit_inbounds(cp, web, lambda inbound: (inbound, tagged(inbound, {"kuma.io/service": "api"}, port=port)))
    await until("web is refused, being api as well", lambda: web.is_refused("backend"))


async def followed(cp: Running, selected: set[str]) -> None:
    """Return once leaves and connections have followed permissions that look at these tags."""

    async def settled() -> bool:
        config = cp.parts.meshes.state("default").config
        return config.selected == selected and config.stage == Stage(frozenset(selected))

    await until("leaves and connections have followed", settled)


class Kept:
    """One connection of a workload to its proxy, for all of its requests; another when it is asked to close."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self) -> bytes:
        """The status of one more request."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        if b"connection: close" in head.lower():
            writer.close()
            self._streams = None
        return head.split(b" ")[1]

    def close(self) -> None:
        """Close what is still open."""
        if self._streams is not None:
            self._streams[1].close()


async def test_no_call_fails_on_the_way_to_permissions_by_tags_and_back(cp: Running, mesh: Sidecars) -> None:
    """With a handshake for every call, and with connections that are kept."""
    await cp.apply(MTLS, ALLOW_ALL)
    await mesh.start("backend")
    await mesh.start("store", protocol="tcp")
    web = await mesh.start("web", calls=("backend", "store"), tags=", env: prod")
    kept = Kept(web.outbounds["backend"])
    for ask in (lambda: web.reaches("backend"), lambda: web.talk("store")):
        await until("web reaches both", ask)
    calls = (lambda: web.call("backend"), lambda: web.talk("store"), kept.call)
    async with traffic(calls[0]) as http, traffic(calls[1]) as tcp, traffic(calls[2]) as on_kept:
        await cp.apply(permission(ALLOW_PROD, DENY_DEV))
        await cp.delete(ALLOW_ALL)
        await followed(cp, {"env"})
        await cp.apply(ALLOW_ALL)
        await cp.delete(permission(ALLOW_PROD))
        await followed(cp, set())
    kept.close()
    assert set(http) == {200}
    assert set(tcp) == {b"store:hello"}
    assert set(on_kept) == {b"200"}
