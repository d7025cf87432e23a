"""Instances of a called service that come and go on live traffic; every request is a new connection of the client."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.integration.sidecars import Sidecars, sidecars, traffic, until


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        await found.apply(ALLOW_ALL)
        yield found


@pytest.fixture
async def mesh(cp: Running, tmp_path: Path) -> AsyncIterator[Sidecars]:
    async with sidecars(cp, tmp_path) as found:
        yield found


@pytest.mark.parametrize("declared", ["{type: Mesh, name: default}", MTLS], ids=["plaintext", "STRICT"])
@pytest.mark.parametrize("protocol", ["tcp", "http"])
async def test_an_instance_joins_and_leaves_without_a_failed_request(
    cp: Running, mesh: Sidecars, protocol: str, declared: str
) -> None:
    await cp.apply(declared)
    await mesh.start("backend", protocol=protocol)
    web = await mesh.start("web", protocol=protocol, calls=("backend",))
    call = (lambda: web.call("backend")) if protocol == "http" else (lambda: web.talk("backend"))
    good: set[object] = {200} if protocol == "http" else {b"backend:hello", b"another:hello"}
    await until("web reaches backend", call)
    async with traffic(call) as answers:
        another = await mesh.start("another", protocol=protocol, service="backend")
        await asyncio.sleep(0.5)
        another.running.send_signal(signal.SIGTERM)
        assert await another.running.wait() == 0
        await asyncio.sleep(0.5)
    assert len(answers) > 100
    assert set(answers) <= good, [answer for answer in answers if answer not in good]
    if protocol == "tcp":
        assert b"another:hello" in answers, "it has taken its part"
