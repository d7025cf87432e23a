"""Permissions by tags act on connections that are open, too: Envoy keeps the ones to the called proxy for long."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo.processes import free_ports
from tests.fakes.control_plane import MTLS, Running, running
from tests.integration.sidecars import Sidecars, sidecars, until

ALL = "{type: MeshTrafficPermission, mesh: default, name: all, spec: {targetRef: {kind: Mesh}, from: ["
MESH_ALLOW = "{targetRef: {kind: Mesh}, default: {action: Allow}}"
DENY_DEV = "{targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}}"
ALLOW_PROD = "{targetRef: {kind: MeshSubset, tags: {env: prod}}, default: {action: Allow}}"


def permission(*items: str) -> str:
    return f"{ALL}{', '.join(items)}]}}}}"


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        yield found


@pytest.fixture
async def mesh(cp: Running, tmp_path: Path) -> AsyncIterator[Sidecars]:
    async with sidecars(cp, tmp_path) as found:
        yield found


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

    async def refused() -> bool:
        return await web.call("backend") == 403

    await until("web is refused, though its Envoy had a connection", refused, seconds=5)
    async with asyncio.timeout(15):
        with contextlib.suppress(ConnectionError):
            assert await reader.read(100) == b""
    writer.close()


async def test_a_new_admission_by_tag_admits(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, permission(DENY_DEV))
    await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",), tags=", env: prod")

    async def status(expected: int) -> bool:
        return await web.call("backend") == expected

    await until("nobody is admitted", lambda: status(403))
    await cp.apply(permission(DENY_DEV, ALLOW_PROD))
    await until("web is admitted", lambda: status(200), seconds=5)


async def test_another_tag_of_a_caller_counts_on_open_connections(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, permission(MESH_ALLOW, DENY_DEV))
    await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",), tags=", env: prod")
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    stored = cp.parts.views.view("default").dataplanes["web-01"]
    inbound = stored.spec.net.inbound[0]
    retagged = inbound.model_copy(update={"tags": {**inbound.tags, "env": "dev"}})
    networking = stored.spec.net.model_copy(update={"inbound": (retagged,)})
    await cp.apply_resource(stored.with_spec(stored.spec.model_copy(update={"networking": networking})))

    async def refused() -> bool:
        return await web.call("backend") == 403

    await until("web is refused", refused, seconds=5)


async def test_a_service_that_a_caller_gets_counts_on_open_connections(cp: Running, mesh: Sidecars) -> None:
    deny_api = "{targetRef: {kind: MeshService, name: api}, default: {action: Deny}}"
    await cp.apply(MTLS, permission(MESH_ALLOW, deny_api))
    await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",))
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    stored = cp.parts.views.view("default").dataplanes["web-01"]
    inbound = stored.spec.net.inbound[0]
    (port,) = free_ports(1)
    api = inbound.model_copy(update={"port": port, "tags": {**inbound.tags, "kuma.io/service": "api"}})
    networking = stored.spec.net.model_copy(update={"inbound": (inbound, api)})
    await cp.apply_resource(stored.with_spec(stored.spec.model_copy(update={"networking": networking})))

    async def refused() -> bool:
        return await web.call("backend") == 403

    await until("web is refused, being api as well", refused, seconds=10)
