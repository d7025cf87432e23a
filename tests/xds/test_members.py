"""A mesh's constraints keep out who connects, end the streams of members that are none any more, and nobody else's."""

import grpc
import pytest

from kuma.base.errors import InvalidResource
from tests.fakes.control_plane import Running, dataplane

WEB = dataplane("web-01", "web", tags=", team: a")
DB = dataplane("db-01", "db", tags=", team: b")
TEAM_A = "{type: Mesh, name: default, constraints: {dataplaneProxy: {requirements: [{tags: {team: a}}]}}}"


async def test_only_members_are_stored_and_served(cp: Running) -> None:
    await cp.apply_resource(DB)
    web, db = await cp.proxy(WEB), await cp.proxy(DB, bring=False)
    await cp.settled(2)
    await cp.apply(TEAM_A)
    ended = await db.failure()
    assert ended.code is grpc.StatusCode.PERMISSION_DENIED
    assert "does not fulfill any requirements defined on the Mesh" in ended.details
    again = await cp.proxy(DB, bring=False)
    assert "does not fulfill any requirements" in (await again.failure()).details
    newcomer = await cp.proxy(dataplane("db-02", "db"))
    assert "does not fulfill any requirements" in (await newcomer.failure()).details
    assert web.connected
    assert WEB.key in cp.parts.proxies
    with pytest.raises(InvalidResource, match="does not fulfill any requirements"):
        await cp.parts.manager.put(DB)
    await cp.apply("{type: Mesh, name: default}")
    back = await cp.proxy(DB, bring=False)
    await cp.settled(2)
    assert back.connected
