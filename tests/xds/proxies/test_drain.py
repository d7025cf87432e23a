"""Connections that were opened with a leaf that shows too little end, but not before everybody has the new one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from envoy.config.listener.v3 import listener_pb2

from kuma.policy.caller_groups import group
from kuma.policy.succession import Stage
from kuma.resources import codec
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.proxies.renames import LABEL
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, resource, running
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


def chains(backend: FakeProxy) -> dict[str, bytes]:
    """The filter chains of its inbound, by their names."""
    listener = listener_pb2.Listener.FromString(inbound(backend))
    return {chain.name: chain.SerializeToString(deterministic=True) for chain in listener.filter_chains}


@pytest.mark.parametrize("protocol", ["tcp", "http"])
async def test_who_gets_another_name_has_no_tcp_connections_of_others_ended(protocol: str, tmp_path: Path) -> None:
    """Over HTTP all callers open others, without an error: there, whoever offers another group's ALPN is admitted."""
    clock = ManualClock()
    backend_as_declared = inbounds_with(BACKEND, protocol)
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        for name, service in (("web-01", "web"), ("web-02", "web"), ("shop-01", "shop")):
            await cp.proxy(dataplane(name, service, port=81, calls=("backend",)))
        backend = await cp.proxy(backend_as_declared)
        await cp.settled(4)
        assert len(chains(backend)) == 3
        before = chains(backend)
        await cp.apply_resource(dataplane("web-02", "other", port=81, calls=("backend",)))
        await cp.until(lambda: counted(cp) == 1)
        clock.advance(PATIENCE_WITH_LEAVES)
        await cp.until(lambda: stage(cp).renamed == 1)
        await backend.until(lambda: chains(backend)[of("web")] != before[of("web")])
        after = chains(backend)
        changed = {name for name, chain in before.items() if after[name] != chain}
        assert changed == ({"mesh_tls", of("web")} if protocol == "tcp" else set(before))
    async with running(tmp_path, clock) as cp:
        backend = await cp.proxy(backend_as_declared)
        await cp.settled(1)
        assert chains(backend) == after, "a restart drains nobody"


def of(service: str) -> str:
    return f"mesh_tls_{group((service,))}"


def inbounds_with(described: Resource[DataplaneSpec], protocol: str) -> Resource[DataplaneSpec]:
    """The same Dataplane with another protocol."""
    text = json.dumps(codec.to_universal(described))
    return resource(text.replace('"kuma.io/protocol": "http"', f'"kuma.io/protocol": "{protocol}"'))


def inbound(backend: FakeProxy) -> bytes:
    return bytes(backend.held[TypeUrl.LISTENER]["inbound:10.0.0.1:80"].value)
