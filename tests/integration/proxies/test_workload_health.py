"""An inbound whose workload does not answer leaves its callers' endpoints and comes back, as a real Envoy finds out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from demo.processes import free_ports
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.integration.sidecars import Sidecar, Sidecars, exchange, more, traffic, until

PROBE = ", serviceProbe: {interval: 1s, timeout: 1s, unhealthyThreshold: 1, healthyThreshold: 1, tcp: {}}"


@pytest.fixture
def declared() -> tuple[str, ...]:
    return MTLS, ALLOW_ALL


class Workload:
    """A workload over HTTP that can be stopped, and started again at its port."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> None:
        self.port = port or self.port
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()


@pytest.fixture
async def dying() -> AsyncIterator[Workload]:
    found = Workload()
    yield found
    with contextlib.suppress(AssertionError):
        await found.stop()


def is_ready(cp: Running, sidecar: Sidecar) -> bool:
    return cp.parts.views.view("default").dataplanes[f"{sidecar.name}-01"].spec.net.inbound[0].is_ready


async def test_callers_are_sent_to_workloads_that_answer(cp: Running, mesh: Sidecars, dying: Workload) -> None:
    lasting = await mesh.start("lasting", service="backend", inbound=PROBE)
    mortal = await mesh.start("mortal", service="backend", inbound=PROBE, workload=dying.start)
    (port,) = free_ports(1)
    mesh.options = (f"--readiness-port={port}",)
    web = await mesh.start("web", calls=("backend",))

    async def is_told() -> bool:
        return b" 200 OK" in await exchange(port, b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n")

    await until("kuma-dp says that the proxy is ready", is_told)

    async def ready() -> bool:
        return is_ready(cp, mortal) and is_ready(cp, lasting)

    async def noticed() -> bool:
        return not is_ready(cp, mortal)

    await until("both workloads answer", ready)
    await mesh.converged()
    async with traffic(lambda: web.call("backend")) as answers:
        await more(answers)
        assert set(answers) == {200}
        await dying.stop()
        await until("the one that has ended is noticed", noticed)
        await mesh.converged()
        asked = len(answers) + 1
        await more(answers)
        assert set(answers[asked:]) == {200}
        await dying.start()
        await until("it is there again", ready)
        await mesh.converged()
        await more(answers)
        assert set(answers[asked:]) == {200}
