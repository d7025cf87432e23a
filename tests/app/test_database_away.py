"""A control plane whose PostgreSQL is away for a while: what it serves goes on, and what it cannot do it says."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from demo import postgres as servers
from demo.postgres import Postgres
from kuma.base.tls.trust import NOBODY
from kuma.store.sql.store import SqlStore
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.stores import new_store, store_settings

WEB = dataplane("web-01", "web")
MONTH = timedelta(days=30)


@pytest.fixture(scope="module")
def instance() -> Iterator[Postgres]:
    """A server that tests may stop."""
    with servers.server() as found:
        yield found


async def known(cp: Running, clock: ManualClock, *, away: bool) -> None:
    """Return once the control plane knows whether the database is away."""
    store = cp.parts.manager.store
    assert isinstance(store, SqlStore)
    async with asyncio.timeout(PATIENCE):
        while bool(store.problem) is not away:
            clock.advance(1)
            await asyncio.sleep(0.02)


async def test_proxies_keep_what_they_have_and_get_certificates_and_writes_are_told_to_wait(
    instance: Postgres, tmp_path: Path
) -> None:
    clock, address = ManualClock(), await new_store(instance, tmp_path)
    async with running(tmp_path, clock, store=store_settings(address)) as cp:
        await cp.apply(MTLS)
        web = await cp.proxy(WEB)
        await cp.settled(1)
        first = web.certificate
        assert first
        base, ready = f"http://127.0.0.1:{await cp.api_port()}", f"http://127.0.0.1:{await cp.parts.diagnostics.port()}"
        async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
            await asyncio.to_thread(instance.stop)
            await known(cp, clock, away=True)
            answer = await client.put(f"{base}/meshes/other", json={"type": "Mesh", "name": "other"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            answer = await client.get(f"{ready}/ready")
            assert (answer.status_code, "the database cannot be used" in answer.text) == (503, True)
            assert (await client.get(f"{ready}/healthy")).status_code == 200
            clock.advance(MONTH.total_seconds() * 0.9)
            async with asyncio.timeout(PATIENCE):
                while web.certificate == first:
                    await asyncio.sleep(0.02)
            assert web.connected
            await asyncio.to_thread(instance.start)
            await known(cp, clock, away=False)
            assert (await client.get(f"{ready}/ready")).text == "ready\n"
            answer = await client.put(f"{base}/meshes/other", json={"type": "Mesh", "name": "other"})
            assert answer.status_code == 201
            await cp.apply("{type: Mesh, name: default}")
            await cp.settled(1)
            assert web.connected
