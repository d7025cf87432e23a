"""Permissions by tags act on connections that are open, too: Envoy keeps the ones to the called proxy for long."""

import asyncio
import contextlib

from demo.processes import free_ports
from tests.fakes.control_plane import MTLS, Running
from tests.integration.changes import edit_inbounds, tagged
from tests.integration.sidecars import Sidecars, until

ALL = "{type: MeshTrafficPermission, mesh: default, name: all, spec: {targetRef: {kind: Mesh}, from: ["
MESH_ALLOW = "{targetRef: {kind: Mesh}, default: {action: Allow}}"
DENY_DEV = "{targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}}"
ALLOW_PROD = "{targetRef: {kind: MeshSubset, tags: {env: prod}}, default: {action: Allow}}"


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
    await until("web is refused, though its Envoy had a connection", lambda: web.is_refused("backend"), seconds=5)
    async with asyncio.timeout(15):
        with contextlib.suppress(ConnectionError):
            assert await reader.read(100) == b""
    writer.close()


async def test_a_new_admission_by_tag_admits(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, permission(DENY_DEV))
    await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",), tags=", env: prod")
    await until("nobody is admitted", lambda: web.is_refused("backend"))
    await cp.apply(permission(DENY_DEV, ALLOW_PROD))
    await until("web is admitted", lambda: web.reaches("backend"), seconds=5)


async def test_another_tag_of_a_caller_counts_on_open_connections(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, permission(MESH_ALLOW, DENY_DEV))
    await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",), tags=", env: prod")
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    await edit_inbounds(cp, web, lambda inbound: (tagged(inbound, {"env": "dev"}),))
    await until("web is refused", lambda: web.is_refused("backend"), seconds=5)


async def test_a_service_that_a_caller_gets_counts_on_open_connections(cp: Running, mesh: Sidecars) -> None:
    deny_api = "{targetRef: {kind: MeshService, name: api}, default: {action: Deny}}"
    await cp.apply(MTLS, permission(MESH_ALLOW, deny_api))
    web, _ = await mesh.pair()
    (port,) = free_ports(1)
    await edit_inbounds(cp, web, lambda inbound: (inbound, tagged(inbound, {"kuma.io/service": "api"}, port=port)))
    await until("web is refused, being api as well", lambda: web.is_refused("backend"), seconds=10)
