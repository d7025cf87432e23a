"""A mesh's constraints keep out who connects, take everything from former members, and nothing from anybody else."""

import httpx
import pytest

from kuma.base.errors import InvalidResource
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

WEB = dataplane("web-01", "web", port=81, calls=("db",), tags=", team: a")
DB = dataplane("db-01", "db", calls=("web",), tags=", team: b")
TEAM_A = MTLS.replace(
    "name: default", "name: default, constraints: {dataplaneProxy: {requirements: [{tags: {team: a}}]}}", 1
)
WHY = "does not fulfill any requirements defined on the Mesh"


def has_nothing(proxy: FakeProxy) -> bool:
    """Whether it neither listens nor calls: then its certificate is of no use to it either."""
    return not proxy.names(TypeUrl.LISTENER) and not proxy.names(TypeUrl.CLUSTER)


async def test_only_members_are_stored_and_served(cp: Running) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    await cp.apply_resource(DB)
    web, db = await cp.proxy(WEB), await cp.proxy(DB, bring=False)
    await cp.settled(2)
    await web.until(lambda: b"10.0.0.1" in web.held[TypeUrl.ENDPOINTS]["db"].value)
    await cp.apply(TEAM_A)
    await db.until(lambda: has_nothing(db))
    await web.until(lambda: b"10.0.0.1" not in web.held[TypeUrl.ENDPOINTS]["db"].value)
    proxy = cp.parts.proxies.get(DB.key)
    assert proxy is not None
    assert proxy.keeper.identity is None, "nor is another one issued"
    shown = await cp.insight(DB, lambda spec: spec.withheld_inbounds)
    assert [WHY in reason for reason in shown.withheld_inbounds] == [True]
    await db.disconnect()
    await cp.disconnected(DB)
    again = await cp.proxy(DB, bring=False)
    await cp.settled(2)
    assert has_nothing(again), "nor after it has connected again, with what it had"
    assert again.certificate == b""
    await again.disconnect()
    newcomer = await cp.proxy(dataplane("db-02", "db", port=82))
    assert WHY in (await newcomer.failure()).details
    async with httpx.AsyncClient(verify=False, timeout=PATIENCE) as client:
        body = {"mesh": "default", "name": "db-01", "dataplaneToken": cp.token()}
        started = await client.post(f"https://localhost:{await cp.parts.dp.port()}/bootstrap", json=body)
    assert (started.status_code, WHY in started.text) == (422, True)
    assert web.connected
    assert web.names(TypeUrl.LISTENER)
    with pytest.raises(InvalidResource, match=WHY):
        await cp.parts.manager.put(DB)
    await cp.apply(MTLS)
    back = await cp.proxy(DB, bring=False)
    await back.until(lambda: back.names(TypeUrl.LISTENER) and back.certificate)
    await web.until(lambda: b"10.0.0.1" in web.held[TypeUrl.ENDPOINTS]["db"].value)


async def test_a_member_that_brings_its_dataplane_along_comes_back_to_nothing(cp: Running) -> None:
    """Refused, it would go on with what it has."""
    await cp.apply(MTLS, ALLOW_ALL)
    db = await cp.proxy(DB)
    await db.until(lambda: db.names(TypeUrl.LISTENER) and db.certificate)
    await cp.apply(TEAM_A)
    await db.until(lambda: has_nothing(db))
    await db.disconnect()
    again = await cp.proxy(DB)
    await cp.settled(1)
    assert again.connected
    assert has_nothing(again)
