"""Several control planes over one PostgreSQL change mutual TLS as one, although their clocks are a minute apart."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from kuma.base.errors import Conflict
from kuma.base.tls.trust import NOBODY
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import AdministrationInsight
from kuma.resources.models.mesh_transition import Level, MeshTransitionSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Update
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, OTHER_CA, dataplane, resource, running
from tests.fakes.patience import PATIENCE
from tests.fakes.several import Several
from tests.fakes.stores import store_settings

WEB, DB = dataplane("web-01", "web"), dataplane("db-01", "db")


def transitions(found: Several) -> list[MeshTransitionSpec]:
    views = [plane.parts.views.view("default") for plane in found.planes]
    return [view.transition.spec if view.transition else MeshTransitionSpec() for view in views]


def complete(found: Several, level: Level = Level.STRICT) -> bool:
    return all(each.complete and each.position.level is level for each in transitions(found))


@pytest.mark.parametrize("served_by", ["leader", "other"])
async def test_a_change_waits_for_the_proxies_of_all(two: Several, served_by: str) -> None:
    leader, other = (two.planes[n] for n in (two.leader, 1 - two.leader))
    home, away = (leader, other) if served_by == "leader" else (other, leader)
    await home.proxy(WEB)
    db = await away.proxy(DB)
    await two.until(lambda: all(len(plane.parts.views.view("default").dataplanes) == 2 for plane in two.planes))
    await home.settled(1)
    await away.settled(1)
    db.silent = True
    await home.apply(MTLS)
    await two.until(
        lambda: all(
            ([a.name for a in each.waiting_for], each.acknowledged, each.position.level)
            == (["db-01"], 1, Level.ACCEPTING)
            for each in transitions(two)
        )
    )
    await db.disconnect()
    await home.proxy(DB)  # it moves to the other control plane
    await two.until(lambda: complete(two))
    assert not any(each.unresponsive for each in transitions(two))
    assert [each.followers for each in transitions(two)] == [2, 2]


async def test_who_does_not_answer_is_given_up_by_all(two: Several) -> None:
    await two.planes[0].proxy(WEB)
    db = await two.planes[1].proxy(DB)
    await two.until(lambda: all(len(plane.parts.views.view("default").dataplanes) == 2 for plane in two.planes))
    for plane in two.planes:
        await plane.settled(1)
    db.silent = True
    await two.planes[0].apply(MTLS)
    await two.until(lambda: all([a.name for a in each.unresponsive] == ["db-01"] for each in transitions(two)))
    await two.until(lambda: {each.position.level for each in transitions(two)} == {Level.STRICT})


async def test_another_leader_goes_on_where_the_last_one_stood(two: Several) -> None:
    """The leader is paused in the middle of a change of authority; what it does afterwards in that role is refused."""
    paused = two.leader
    stays = 1 - paused
    web = await two.planes[stays].proxy(WEB)
    await two.planes[stays].apply(MTLS)
    await two.until(lambda: complete(two))
    guard = two.coordination[paused].guard()
    web.silent = True
    await two.planes[stays].apply(OTHER_CA)
    await two.until(lambda: all([a.name for a in each.waiting_for] == ["web-01"] for each in transitions(two)))
    await two.until(lambda: two.coordination[stays].leads, paused=[paused])
    store = two.planes[paused].parts.manager.store
    with pytest.raises(Conflict):
        await store.transact([*guard, Create(resource("{type: Mesh, name: late}"))])
    await web.disconnect()
    await two.planes[stays].proxy(WEB)
    await two.until(lambda: complete(two), paused=[paused])
    await two.until(lambda: len(two.coordination[stays].others()) == 1)  # it comes back, and leads no more
    assert not two.coordination[paused].leads
    assert two.coordination[stays].leads


async def test_all_know_who_is_there_and_of_their_clocks(two: Several) -> None:
    seen = [{i.name: i for i in each.instances()} for each in two.coordination]
    assert seen[0].keys() == seen[1].keys()
    assert len(seen[0]) == 2
    assert [sum(i.leads for i in each.values()) for each in seen] == [1, 1]
    off = [i.spec.written - i.received for i in seen[0].values() if i.name in two.coordination[0].others()]
    assert [55 < each.total_seconds() < 65 for each in off] == [True]


async def test_the_api_of_each_shows_all(two: Several) -> None:
    shown = []
    async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
        for plane in two.planes:
            base = f"http://127.0.0.1:{await plane.api_port()}"
            answer = (await client.get(f"{base}/control-planes")).json()
            whole = (await client.get(f"{base}/global-insight")).json()
            assert [one["name"] for one in whole["controlPlanes"]] == [one["name"] for one in answer["items"]]
            assert (answer["total"], sum(one["answers"] for one in answer["items"])) == (2, 1)
            shown.append({(one["name"], one["leader"], one["since"], one["version"]) for one in answer["items"]})
    assert shown[0] == shown[1]
    assert sum(leader for _, leader, _, _ in shown[0]) == 1


async def test_each_answers_alike_about_the_proxies_of_all(two: Several) -> None:
    await two.planes[0].apply(MTLS)
    await two.planes[0].proxy(WEB)
    await two.planes[1].proxy(DB)
    await two.until(lambda: complete(two))
    bases = [f"http://127.0.0.1:{await plane.api_port()}" for plane in two.planes]
    async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
        for path in ("certificates", "meshes/default/dataplanes/web-01/_config"):
            answers = [(await client.get(f"{base}/{path}")).json() for base in bases]
            while answers[0] != answers[1] or answers[0].get("total") not in (2, None):
                await two.later(1)  # what is told of proxies is stored meanwhile
                answers = [(await client.get(f"{base}/{path}")).json() for base in bases]
        certificates = (await client.get(f"{bases[0]}/certificates")).json()["items"]
    assert [(one["name"], one["spiffeIds"]) for one in certificates] == [
        ("db-01", ["spiffe://default/db"]),
        ("web-01", ["spiffe://default/web"]),
    ]
    assert all(one["serial"] and one["reason"] and one["notAfter"] for one in certificates)


async def test_a_control_plane_alone_shows_itself(tmp_path: Path) -> None:
    async with running(tmp_path) as plane, httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
        (one,) = (await client.get(f"http://127.0.0.1:{await plane.api_port()}/control-planes")).json()["items"]
    assert (one["leader"], one["answers"], one["clockDifferenceSeconds"]) == (True, True, 0)


async def test_one_that_starts_takes_no_proxy_of_another_for_gone(
    two: Several, postgres: tuple[str, ...], tmp_path: Path
) -> None:
    await two.planes[0].proxy(WEB)
    insight = kinds.DATAPLANE_INSIGHT.key("web-01", "default")

    async def online() -> bool:
        found = await two.planes[1].parts.manager.find(insight)
        return found is not None and found.spec.online

    while not await online():
        await two.later(1)
    clock = ManualClock()
    async with running(tmp_path / "third", clock, store=store_settings(postgres)) as third:
        every = Several([*two.planes, third], [*two.clocks, clock])
        await every.met()
        await every.later(90)  # longer than the grace that proxies have at a start
        assert await online()
        assert await every.planes[2].parts.manager.find(WEB.key) is not None


async def test_proxies_of_one_that_has_gone_are_removed_by_the_leader(two: Several) -> None:
    leader = two.leader
    web = await two.planes[1 - leader].proxy(WEB)
    view = two.planes[leader].parts.views
    await two.until(lambda: two.coordination[leader].has(WEB.key) and WEB.name in view.view("default").dataplanes)
    await web.disconnect()
    await two.until(lambda: WEB.name not in view.view("default").dataplanes, paused=[1 - leader], step=1)


async def test_a_stream_at_another_control_plane_keeps_the_name_from_other_addresses(two: Several) -> None:
    first, second = two.planes
    held = await first.proxy(WEB)
    await two.until(lambda: two.coordination[1].has(WEB.key))
    insight = kinds.DATAPLANE_INSIGHT.key("web-01", "default")

    async def settled() -> Resource[Any]:
        """What is stored once the control plane that writes it, too, has nothing more to tell."""
        seen = None
        while (found := await first.parts.manager.find(insight)) is None or found != seen:
            seen = found
            await two.later(10)
        return found

    while (stored := await settled()).spec.administration is None:
        pass
    assert held.connected
    moved = AdministrationInsight(host="192.0.2.7", port=stored.spec.administration.port)
    while stored.spec.administration != moved:
        changed = stored.spec.model_copy(update={"administration": moved})
        with suppress(Conflict):
            await second.parts.manager.store.transact([Update(stored.with_spec(changed))])
        stored = await settled()
    other = await second.proxy(WEB)
    error = await other.failure()
    assert "there is already an active stream from this node" in error.details
    assert held.connected
