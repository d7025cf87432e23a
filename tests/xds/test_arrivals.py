"""Whoever arrives under a name gets nothing, takes nothing and holds nothing up that is another's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kuma.base.errors import AccessDenied
from kuma.resources.dataplane_insight import Version
from kuma.resources.resource import Resource
from kuma.xds.arrivals import Arrivals, Presented
from tests.fakes.control_plane import Running, dataplane, running


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        yield found


async def test_of_two_that_arrive_at_once_neither_takes_the_place_of_the_other(cp: Running) -> None:
    arrivals = Arrivals(cp.parts.manager, cp.parts.views, cp.clock)

    async def arrive(described: Resource[Any], service: str) -> Resource[Any] | AccessDenied:
        identity = arrivals.authenticate("default", cp.token(service=service))
        try:
            return await arrivals.admit(Presented(described.key, described, Version()), identity)
        except AccessDenied as error:
            return error

    for number in range(5):
        name = f"it-{number}"
        services = ("web", "db")
        both = await asyncio.gather(*(arrive(dataplane(name, service), service) for service in services))
        (winner,) = [found for found in both if isinstance(found, Resource)]
        assert (await cp.parts.manager.get(winner.key)).spec == winner.spec
