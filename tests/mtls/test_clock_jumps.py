"""A clock that is set far ahead and back again, under a mesh that goes on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import httpx
from cryptography import x509

from kuma.base.tls.trust import NOBODY
from kuma.resources import kinds
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

DAY = 86400.0
WEB, DB = dataplane("web-01", "web"), dataplane("db-01", "db")


def leaf(proxy: FakeProxy) -> x509.Certificate:
    return x509.load_pem_x509_certificate(proxy.certificate)


async def jump(cp: Running, clock: ManualClock, seconds: float) -> None:
    """The clock is set, and looked at."""
    clock.jump(seconds)
    clock.advance(2)
    await asyncio.sleep(0)


async def test_nobody_has_a_leaf_that_does_not_hold_by_its_own_clock(tmp_path: Path) -> None:
    """The proxies' clocks are right all the time."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS)
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)
        await cp.settled(1)
        first, right = leaf(web), clock.now()
        await jump(cp, clock, 40 * DAY)
        await web.until(lambda: leaf(web).serial_number != first.serial_number)
        assert leaf(web).not_valid_before_utc < right
        assert leaf(web).not_valid_after_utc > clock.now()
        young = await cp.proxy(DB)  # comes while the clock is wrong
        await young.until(lambda: young.certificate)
        await jump(cp, clock, -40 * DAY)
        for proxy in (web, young):
            await proxy.until(lambda: leaf(proxy).not_valid_after_utc <= clock.now() + timedelta(days=30))  # noqa: B023
            assert leaf(proxy).not_valid_before_utc < right
        async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
            metrics = (await client.get(f"http://127.0.0.1:{await cp.parts.diagnostics.port()}/metrics")).text
        assert "clock_jumps_total 2.0" in metrics


async def test_a_root_made_while_the_clock_was_ahead_is_replaced(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await jump(cp, clock, 40 * DAY)
        await cp.apply(MTLS)
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)
        await jump(cp, clock, -40 * DAY)
        await cp.until(lambda: leaf(web).not_valid_before_utc < clock.now())
        assert web.connected


async def test_nobody_is_waited_for_any_longer_or_less_long(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS)
        web, db = await cp.proxy(WEB), await cp.proxy(DB)
        await web.until(lambda: web.certificate)
        await db.until(lambda: db.certificate)
        await cp.settled(2)
        db.silent = True
        await jump(cp, clock, 10 * DAY)
        await cp.apply(MTLS.replace("ca-1", "ca-2"))
        key = kinds.MESH_TRANSITION.key("default", "default")

        async def position(**wanted: object) -> None:
            async with asyncio.timeout(PATIENCE):
                while True:
                    spec = (await cp.parts.manager.get(key)).spec
                    names = {"waiting": [a.name for a in spec.waiting_for], "late": [a.name for a in spec.unresponsive]}
                    if names == wanted:
                        return
                    clock.advance(0.01)  # an acknowledgement may come after what was advanced before
                    await asyncio.sleep(0.02)

        clock.advance(1)
        await position(waiting=["db-01"], late=[])
        await jump(cp, clock, 40 * DAY)
        await cp.apply(MTLS.replace("ca-1", "ca-3"))  # looked at again
        clock.advance(1)
        await position(waiting=["db-01"], late=[])
        await jump(cp, clock, -50 * DAY)
        clock.advance(31)
        await position(waiting=[], late=["db-01"])
