"""Whoever arrives under a name gets nothing, takes nothing and holds nothing up that is another's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kuma.base.errors import AccessDenied
from kuma.resources.models.dataplane_insight import Version
from kuma.resources.resource import Resource
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.stream.proxy_authentication import Authenticator, Presented
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import Running, dataplane, running
from tests.fakes.patience import PATIENCE

WEB = dataplane("web-01", "web")


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        yield found


async def test_of_two_that_arrive_at_once_neither_takes_the_place_of_the_other(cp: Running) -> None:
    authenticator = Authenticator(cp.parts.manager, cp.parts.views, cp.clock)

    async def arrive(described: Resource[Any], service: str) -> Resource[Any] | AccessDenied:
        identity = authenticator.authenticate("default", cp.token(service=service))
        try:
            return (await authenticator.admit(Presented(described.key, described, Version()), identity)).dataplane
        except AccessDenied as error:
            return error

    for number in range(5):
        name = f"it-{number}"
        services = ("web", "db")
        both = await asyncio.gather(*(arrive(dataplane(name, service), service) for service in services))
        (winner,) = [found for found in both if isinstance(found, Resource)]
        assert (await cp.parts.manager.get(winner.key)).spec == winner.spec


@pytest.mark.parametrize("tag", ["k8s.kuma.io/address.10.96.0.5:443", "k8s.kuma.io/also-at.10.0.0.9"])
async def test_a_proxy_cannot_say_that_it_is_called_at_an_address_of_another_service(cp: Running, tag: str) -> None:
    """By such a tag, workloads in front of transparent proxies would call it in the other's place."""
    described = dataplane("aaa-01", "aaa", tags=f", {tag}: aaa")
    thief = await cp.proxy(described, cp.token(service="aaa"))
    failure = await thief.failure()
    assert failure.code is grpc.StatusCode.PERMISSION_DENIED
    assert f'networking.inbound[0].tags["{tag}"]' in failure.details
    assert "aaa-01" not in cp.parts.views.view("default").dataplanes


async def test_whoever_is_not_let_in_does_not_put_off_the_removal_of_anothers_dataplane(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.come_and_gone(WEB)
        for described, bring in ((WEB, False), (dataplane("web-01", "db"), True)):
            thief = await cp.proxy(described, cp.token(service="db"), bring=bring)
            assert (await thief.failure()).code is grpc.StatusCode.PERMISSION_DENIED
        clock.advance(10)
        async with asyncio.timeout(PATIENCE):
            await cp.parts.views.until(lambda: not cp.parts.views.view("default").dataplanes)


async def test_whoever_is_not_let_in_does_not_use_up_the_streams_of_another(tmp_path: Path) -> None:
    limits = {"port": 0, "stream_burst": 3, "streams_per_second": 0.001}
    async with running(tmp_path, xds_server=limits) as cp:
        for _ in range(5):
            thief = await cp.proxy(WEB, cp.token(service="db"), bring=False)
            assert "not found" in (await thief.failure()).details
        await cp.apply_resource(WEB)
        for _ in range(5):
            for described, bring in ((WEB, False), (dataplane("web-01", "db"), True)):
                thief = await cp.proxy(described, cp.token(service="db"), bring=bring)
                assert (await thief.failure()).code is grpc.StatusCode.PERMISSION_DENIED
        web = await cp.proxy(WEB, cp.token(service="web"))
        await web.until(lambda: web.names(TypeUrl.LISTENER))
