"""A control plane that alone is cut off from the database has its proxies go to the others, until it is whole."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from demo import postgres as servers
from kuma.base.tls.trust import NOBODY
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.services import serving_label
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.relay import Relay, relay
from tests.fakes.several import OneCertificate, Several, clocks_apart
from tests.fakes.stores import new_store, store_settings

WEB = dataplane("web-01", "web")
CUT_OFF, OTHER = 0, 1


class Cut:
    """Two control planes that have one certificate; the way of the first one to the database can be cut."""

    def __init__(self, both: Several, way: Relay, database: servers.Postgres) -> None:
        self.both = both
        self.way = way
        self.database = database

    async def healthy(self, number: int) -> int:
        async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
            port = await self.both.planes[number].parts.diagnostics.port()
            return (await client.get(f"http://127.0.0.1:{port}/healthy")).status_code

    async def until_healthy(self, number: int, status: int) -> None:
        """Return once a control plane's health is so; time goes on meanwhile."""
        while await self.healthy(number) != status:
            await self.both.later(1)


@pytest.fixture
async def cut(tmp_path: Path) -> AsyncIterator[Cut]:
    certificate = OneCertificate(tmp_path)
    clocks = clocks_apart(2)
    with servers.server() as database:
        address = await new_store(database, tmp_path)
        async with relay(database.port) as way, contextlib.AsyncExitStack() as stack:
            planes: list[Running] = []
            for number, clock in enumerate(clocks):
                directory = tmp_path / str(number)
                through = (*address[:2], str(way.port), address[3]) if number == CUT_OFF else address
                general = certificate.general(directory)
                one = running(directory, clock, store=store_settings(through), general=general)
                planes.append(await stack.enter_async_context(one))
            both = Several(planes, clocks)
            await both.met()
            yield Cut(both, way, database)


def serves(at: Running) -> bool:
    """Whether callers are sent to the proxy, as one of them sees it."""
    found = at.parts.views.view("default").dataplanes.get(WEB.name)
    return found is not None and serving_label.is_serving(found)


async def test_its_proxies_go_to_the_others_and_come_back_when_it_is_whole(cut: Cut) -> None:
    both, (here, there) = cut.both, cut.both.planes
    await here.apply(MTLS)
    web = await here.proxy(WEB)
    await both.until(lambda: web.certificate and serves(there))
    both.cut_off = frozenset({CUT_OFF})
    cut.way.cut()
    await both.until(lambda: not web.connected)
    await here.disconnected(WEB)
    await cut.until_healthy(CUT_OFF, 503)
    assert await cut.healthy(OTHER) == 200
    again = await there.proxy(WEB)
    await both.until(lambda: again.names(TypeUrl.LISTENER))
    for _ in range(20):  # whoever leads has looked by then who did not come back
        await both.later(10, paused=[CUT_OFF], step=2)
    await both.until(lambda: serves(there))
    cut.way.mend()
    await cut.until_healthy(CUT_OFF, 200)
    await both.met()
    await again.disconnect()
    await there.disconnected(WEB)
    back = await here.proxy(WEB)
    await both.until(lambda: back.names(TypeUrl.LISTENER) and serves(there))


async def test_while_nobody_can_use_the_database_proxies_stay(cut: Cut) -> None:
    both, here = cut.both, cut.both.planes[CUT_OFF]
    await here.apply(MTLS)
    web = await here.proxy(WEB)
    await both.until(lambda: web.certificate and serves(here))
    both.cut_off = frozenset({CUT_OFF, OTHER})
    await asyncio.to_thread(cut.database.stop)
    for _ in range(8):
        await both.later(5)
    assert web.connected
    assert (await cut.healthy(CUT_OFF), await cut.healthy(OTHER)) == (200, 200)
    await asyncio.to_thread(cut.database.start)
    await both.met()
    assert web.connected
