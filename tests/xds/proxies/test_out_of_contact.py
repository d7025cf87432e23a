"""Proxies that are cut off, or hang, go on with what they have: they are named as long as their certificates hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from kuma.base.tls.trust import NOBODY
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import MeshTransitionSpec
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.services import serving_label
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

DAY = 86400.0
WEB, BACKEND = dataplane("web-01", "web", calls=("backend",)), dataplane("backend-01", "backend")
ONLY_WEB = ALLOW_ALL.replace("'*'", "web", 1)


async def shown(cp: Running, holds: Callable[[MeshTransitionSpec], Any]) -> MeshTransitionSpec:
    """The mesh's transition, once it is as expected."""
    key = kinds.MESH_TRANSITION.key("default", "default")
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await cp.parts.manager.find(key)
            if found is not None and holds(found.spec):
                spec: MeshTransitionSpec = found.spec
                return spec
            cp.workers_apply()
            await asyncio.sleep(0.02)


async def two(cp: Running, *, bring: bool = True) -> tuple[FakeProxy, FakeProxy]:
    """Two proxies that run all that they should, with mutual TLS."""
    await cp.apply(ALLOW_ALL, MTLS)
    for described in () if bring else (WEB, BACKEND):
        await cp.apply_resource(described)
    web, backend = await cp.proxy(WEB, bring=bring), await cp.proxy(BACKEND, bring=bring)
    await web.until(lambda: web.certificate)
    await backend.until(lambda: backend.certificate)
    await cp.settled(2)
    await shown(cp, lambda spec: spec.complete and spec.followers == 2)
    return web, backend


async def backend_lost(cp: Running, *, bring: bool = True) -> None:
    """Two proxies, of which the one of backend has lost its stream without a farewell."""
    _, backend = await two(cp, bring=bring)
    await backend.disconnect()
    await cp.disconnected(BACKEND)


def is_served(cp: Running) -> bool:
    found = cp.parts.views.view("default").dataplanes.get(BACKEND.name)
    return found is not None and serving_label.is_serving(found)


async def names(cp: Running) -> str:
    async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
        return (await client.get(f"http://127.0.0.1:{await cp.parts.diagnostics.port()}/metrics")).text


@pytest.mark.parametrize("bring", [True, False])
async def test_a_proxy_that_is_cut_off_is_named_with_what_it_admits(tmp_path: Path, bring: bool) -> None:
    clock = ManualClock()
    with capture_logs() as logs:
        async with running(tmp_path, clock) as cp:
            await backend_lost(cp, bring=bring)
            cut_off = clock.now()
            await cp.apply(ONLY_WEB)
            clock.advance(16)
            spec = await shown(cp, lambda spec: spec.out_of_contact)
            (named,) = spec.out_of_contact
            assert (named.name, named.since) == ("backend-01", cut_off)
            assert named.admits == ("backend:80: everybody in the mesh",)
            assert timedelta(days=29) < named.may_serve_until - cut_off <= timedelta(days=30)
            assert (spec.followers, spec.complete) == (2, True)
            assert 'mesh_proxies_out_of_contact{mesh="default"} 1.0' in await names(cp)
            clock.advance(10 * DAY)
            assert (await shown(cp, lambda spec: spec.out_of_contact)).followers == 2
            await cp.proxy(BACKEND, bring=bring)
            await shown(cp, lambda spec: spec.complete and not spec.out_of_contact)
    (warning,) = [line for line in logs if line["event"].startswith("proxy out of contact")]
    assert (warning["dataplane"], warning["admits"], warning["log_level"]) == ("backend-01", named.admits, "warning")


async def test_its_callers_are_sent_elsewhere_and_it_is_forgotten_when_its_certificate_ends(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        _, backend = await two(cp)
        await cp.parts.views.until(lambda: is_served(cp))
        await backend.disconnect()
        await cp.disconnected(BACKEND)
        clock.advance(10)
        await cp.parts.views.until(lambda: not is_served(cp))
        assert BACKEND.name in cp.parts.views.view("default").dataplanes
        async with asyncio.timeout(PATIENCE):
            while BACKEND.name in cp.parts.views.view("default").dataplanes:  # looked at in pieces of this time
                clock.advance(DAY)
                await asyncio.sleep(0.02)
        await shown(cp, lambda spec: not spec.out_of_contact and spec.followers == 1)


async def test_one_that_comes_back_is_called_again(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await backend_lost(cp)
        clock.advance(10)
        await cp.parts.views.until(lambda: not is_served(cp))
        await cp.proxy(BACKEND)
        await cp.parts.views.until(lambda: is_served(cp))
        clock.advance(20)
        await shown(cp, lambda spec: spec.complete and not spec.out_of_contact and spec.followers == 2)


async def withdraw(cp: Running) -> None:
    body = {"mesh": "default", "name": BACKEND.name, "dataplaneToken": cp.token()}
    async with httpx.AsyncClient(verify=False, timeout=PATIENCE) as client:
        answer = await client.post(f"https://localhost:{await cp.parts.dp.port()}/withdraw", json=body)
    assert answer.is_success, answer.text


async def test_who_is_ready_to_take_its_place_is_known_before_it_goes(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await two(cp)
        collecting, writes = asyncio.Event(), dict[str, Any](cp.parts.components)["endpoint readiness"]._writes

        async def pause(_: float) -> None:
            collecting.set()
            await asyncio.Event().wait()

        writes._pause = pause
        await cp.proxy(dataplane("backend-02", "backend"))
        async with asyncio.timeout(PATIENCE):
            await collecting.wait()
        successor = dataplane("backend-03", "backend")
        await cp.proxy(successor)
        await cp.until(lambda: (found := cp.parts.proxies.get(successor.key)) and found.serves)
        dataplanes = cp.parts.views.view("default").dataplanes
        assert not serving_label.is_serving(dataplanes[successor.name]), "it is collected with what follows"
        await withdraw(cp)
        dataplanes = cp.parts.views.view("default").dataplanes
        assert serving_label.is_serving(dataplanes[successor.name])
        assert not is_served(cp)


@pytest.mark.parametrize("order", ["first", "afterwards", "when it was given up"])
async def test_one_that_says_that_it_ends_does_not_linger(tmp_path: Path, order: str) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        _, backend = await two(cp)
        if order == "first":
            await withdraw(cp)
        await backend.disconnect()
        await cp.disconnected(BACKEND)
        if order == "when it was given up":
            clock.advance(16)
            await shown(cp, lambda spec: spec.out_of_contact)
        if order != "first":
            await withdraw(cp)
        await cp.until(lambda: clock.is_waited_for_by(f"deregistration of {BACKEND.name}"))
        clock.advance(10)
        await cp.parts.views.until(lambda: BACKEND.name not in cp.parts.views.view("default").dataplanes)
        await shown(cp, lambda spec: spec.complete and not spec.out_of_contact and spec.followers == 1)


async def test_a_restart_forgets_nobody(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await backend_lost(cp)
        clock.advance(16)
        before = await shown(cp, lambda spec: spec.out_of_contact)
    async with running(tmp_path, clock) as cp:
        await cp.proxy(WEB)
        await cp.settled(1)
        clock.advance(61)
        after = await shown(cp, lambda spec: spec.out_of_contact)
        assert after.out_of_contact == before.out_of_contact
        assert BACKEND.name in cp.parts.views.view("default").dataplanes


async def test_without_a_certificate_there_is_nothing_to_name(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.come_and_gone(BACKEND)
        clock.advance(10)
        await cp.parts.views.until(lambda: not cp.parts.views.view("default").dataplanes)


@pytest.mark.parametrize("bring", [True, False])
async def test_a_proxy_that_hangs_is_given_up_with_a_warning_and_stays(tmp_path: Path, bring: bool) -> None:
    """It answers no more, and at last its connection is given up."""
    clock = ManualClock()
    with capture_logs() as logs:
        async with running(tmp_path, clock) as cp:
            _, backend = await two(cp, bring=bring)
            backend.silent = True
            await cp.apply(MTLS.replace("ca-1", "ca-2"))
            await backend.until(lambda: backend.received[-1][0] is TypeUrl.SECRET)
            await shown(cp, lambda spec: [a.name for a in spec.waiting_for] == ["backend-01"])  # web has followed
            clock.advance(31)
            await shown(cp, lambda spec: spec.unresponsive)
            await backend.disconnect()
            await cp.disconnected(BACKEND)
            clock.advance(16)
            spec = await shown(cp, lambda spec: spec.out_of_contact)
            assert ([a.name for a in spec.unresponsive], spec.complete, spec.followers) == (["backend-01"], False, 2)
            assert any("mesh_ca" in unanswered for unanswered in spec.out_of_contact[0].unanswered)
    (warning,) = [line for line in logs if line["event"].startswith("proxy given up")]
    assert (warning["log_level"], warning["dataplane"], warning["connected"]) == ("warning", "backend-01", True)
    assert any("mesh_ca" in unanswered for unanswered in warning["unanswered"])
