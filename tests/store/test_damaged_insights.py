"""What is told of one proxy and cannot be understood, by damage or by age, concerns no other, and is told anew."""

import asyncio
import sqlite3
from pathlib import Path

import httpx
from structlog.testing import capture_logs

from kuma.base.tls.trust import NOBODY
from kuma.resources import kinds
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE

WEB, DB = dataplane("web-01", "web"), dataplane("db-01", "db")
_PATHS = (
    "meshes/default/dataplanes/web-01/_overview",
    "meshes/default/dataplanes/_overview",
    "dataplanes/_overview",
    "meshes/default/dataplane-insights/web-01",
    "meshes/default/dataplane-insights",
    "mesh-insights/default",
    "meshes/default/service-insights",
    "global-insight",
    "certificates",
)


def damage(directory: Path) -> None:
    with sqlite3.connect(directory / "kuma.db") as database:
        changed = database.execute("UPDATE resources SET spec = '{\"mtls\": 7' WHERE kind = ? AND name = 'web-01'", [
            kinds.DATAPLANE_INSIGHT.name,
        ]).rowcount  # fmt: skip
    database.close()
    assert changed == 1


async def known(cp: Running, name: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while (found := await cp.parts.manager.find(kinds.DATAPLANE_INSIGHT.key(name, "default"))) is None or (
            not found.spec.online
        ):
            assert isinstance(cp.clock, ManualClock)
            cp.clock.advance(1)
            await asyncio.sleep(0.02)


async def test_it_is_left_out_and_told_anew_when_its_proxy_connects(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS)
        for one in (WEB, DB):
            await cp.apply_resource(one)
            await cp.proxy(one, bring=False)
            await known(cp, one.name)
    damage(tmp_path)
    async with running(tmp_path, clock) as cp, httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
        base, told = await cp.api_port(), await cp.parts.diagnostics.port()
        for path in _PATHS:
            answer = await client.get(f"http://127.0.0.1:{base}/{path}")
            assert answer.status_code == 200, (path, answer.text)
        shown = (await client.get(f"http://127.0.0.1:{base}/meshes/default/dataplanes/_overview")).json()["items"]
        assert {one["name"]: bool(one["dataplaneInsight"].get("subscriptions")) for one in shown} == {
            "db-01": True,
            "web-01": False,
        }
        metrics = (await client.get(f"http://127.0.0.1:{told}/metrics")).text
        assert "kuma_store_resources_not_understood 1.0" in metrics
        await cp.proxy(WEB, bring=False)
        await known(cp, "web-01")
        metrics = (await client.get(f"http://127.0.0.1:{told}/metrics")).text
        assert "kuma_store_resources_not_understood 0.0" in metrics


async def test_nobody_is_taken_to_have_left_by_what_cannot_be_understood(tmp_path: Path) -> None:
    """Its proxy may be connected to another control plane, or be cut off and admit callers: its certificate holds."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS)
        for one in (WEB, DB):
            await cp.proxy(one)
            await known(cp, one.name)
    damage(tmp_path)
    with capture_logs() as logs:
        async with running(tmp_path, clock) as cp, asyncio.timeout(PATIENCE):
            await cp.proxy(DB)
            while not any(line["event"] == "dataplane of a departed proxy not removed" for line in logs):
                clock.advance(10)
                await asyncio.sleep(0.02)
                assert await cp.parts.manager.find(WEB.key) is not None
            assert await cp.parts.manager.find(WEB.key) is not None
            await cp.proxy(WEB)
            await known(cp, "web-01")
