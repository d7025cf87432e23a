"""Connections that were opened with a leaf that shows too little end, but not before everybody has the new one."""

from __future__ import annotations

from pathlib import Path

from kuma.policy.succession import Stage
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.proxies.renames import LABEL
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running
from tests.fakes.proxy import FakeProxy

WEB = dataplane("web-01", "web", port=81, tags=", env: prod")
BACKEND = dataplane("backend-01", "backend")
BY_TAG = (
    "{type: TrafficPermission, mesh: default, name: prod, sources: [{match: {kuma.io/service: '*', env: prod}}], "
    "destinations: [{match: {kuma.io/service: backend}}]}"
)
PATIENCE_WITH_LEAVES, DRAIN = 31, 31
"""Seconds, a little more than the settings have."""


def drains(backend: FakeProxy) -> bool:
    """Whether its inbound has another filter chain, for callers that show the tag: Envoy drains the old one."""
    return b"env/0" in backend.held[TypeUrl.LISTENER]["inbound:10.0.0.1:80"].value


def stage(cp: Running) -> Stage:
    return cp.parts.meshes.state("default").config.stage


async def started(cp: Running) -> tuple[FakeProxy, FakeProxy]:
    await cp.apply(MTLS, ALLOW_ALL)
    web, backend = await cp.proxy(WEB), await cp.proxy(BACKEND)
    await cp.settled(2)
    return web, backend


async def test_connections_are_drained_when_the_last_proxy_has_its_new_leaf(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        _, backend = await started(cp)
        assert not drains(backend)
        await cp.apply(BY_TAG)
        await cp.until(lambda: drains(backend))


async def test_draining_waits_for_a_proxy_that_has_not_taken_up_its_leaf(tmp_path: Path) -> None:
    """Drained before, its connections would come back with the old leaf, and stay."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        web, backend = await started(cp)
        web.silent = True
        first = web.certificate
        await cp.apply(BY_TAG)
        await web.until(lambda: web.certificate != first)
        await cp.looked_around()
        assert not stage(cp).shown, "web has not said that it has its new leaf"
        assert not drains(backend)
        clock.advance(PATIENCE_WITH_LEAVES)
        await cp.until(lambda: drains(backend))


async def test_the_permissions_before_decide_until_connections_have_ended(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        _, backend = await started(cp)
        await cp.apply(BY_TAG)
        await cp.until(lambda: drains(backend))
        await cp.looked_around()
        assert stage(cp).before is not None, "Envoy may still have connections that cannot show the tag"
        clock.advance(DRAIN)
        await cp.looked_around()
        assert stage(cp).before is None


async def renamed(cp: Running, clock: ManualClock) -> None:
    """Web has got another name, and who has been connected by the old one is drained."""
    await cp.apply_resource(dataplane("web-01", "shop", port=81))
    await cp.until(lambda: counted(cp) == 1)
    clock.advance(PATIENCE_WITH_LEAVES)
    await cp.until(lambda: stage(cp).renamed == 1)


def counted(cp: Running) -> int:
    transition = cp.parts.views.view("default").transition
    return int(transition.labels.get(LABEL, 0)) if transition else 0


async def test_a_restart_drains_nobody_though_there_were_other_names_before(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        _, backend = await started(cp)
        await renamed(cp, clock)
        await backend.until(lambda: b"/1" in inbound(backend))
        before = inbound(backend)
    async with running(tmp_path, clock) as cp:
        assert stage(cp).renamed == 1
        backend = await cp.proxy(BACKEND)
        await cp.settled(1)
        assert inbound(backend) == before


async def test_who_has_got_another_name_before_a_restart_is_drained_after_it(tmp_path: Path) -> None:
    """Also if its new leaf came after it only: what it opens until then shows the old name."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        web, _ = await started(cp)
        await cp.until(lambda: cp.parts.leaves.of(cp.parts.views.view("default")) == {"web-01", "backend-01"})
        web.silent = True
        await cp.apply_resource(dataplane("web-01", "shop", port=81))
        await cp.until(lambda: counted(cp) == 1)
        assert stage(cp).renamed == 0
    async with running(tmp_path, clock) as cp:
        assert stage(cp).renamed == 1
        backend = await cp.proxy(BACKEND)
        await cp.settled(1)
        await cp.proxy(dataplane("web-01", "shop", port=81), bring=False)
        await cp.settled(2)
        clock.advance(PATIENCE_WITH_LEAVES)
        await cp.until(lambda: counted(cp) == 2)
        await backend.until(lambda: b"/2" in inbound(backend))


async def test_who_is_away_with_an_old_name_has_nobody_drained_at_every_start(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        web, _ = await started(cp)
        await cp.until(lambda: len(cp.parts.leaves.of(cp.parts.views.view("default"))) == 2)
        await web.disconnect()
        await renamed(cp, clock)
    async with running(tmp_path, clock) as cp:
        await cp.proxy(BACKEND)
        await cp.settled(1)
        assert stage(cp).unproved == {"shop"}
        clock.advance(PATIENCE_WITH_LEAVES)
        await cp.looked_around()
        clock.advance(DRAIN)
        await cp.until(lambda: not stage(cp).unproved)
        assert counted(cp) == stage(cp).renamed == 1


def inbound(backend: FakeProxy) -> bytes:
    return bytes(backend.held[TypeUrl.LISTENER]["inbound:10.0.0.1:80"].value)
