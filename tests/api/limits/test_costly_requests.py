"""What costs much has a few turns, in all and of each user; whoever asks for something else does not notice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kuma.api.app import create_app
from kuma.api.context import ApiContext, ApiSettings, Observation, Tokens
from kuma.api.http.access_control import LocalAdmins
from kuma.api.http.costly import CostlyRequests, TurnLimits
from kuma.api.http.errors import Problem
from kuma.api.routes import diagnostics
from kuma.app import metrics
from kuma.base import aio
from kuma.base.audit import ACTOR
from kuma.resources.models.observed_traffic import ObservedTrafficSpec
from kuma.resources.view import MeshView
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import resource
from tests.fakes.patience import PATIENCE

TRAFFIC = "/meshes/default/observed-traffic"


class Held(dict[str, ObservedTrafficSpec]):
    """Traffic that nobody reads to its end before it is let go: it keeps the threads that work on it."""

    def __init__(self) -> None:
        super().__init__()
        self._gone = threading.Event()

    def __iter__(self) -> Iterator[str]:
        assert self._gone.wait(PATIENCE)
        return iter(())

    items = keys = values = __iter__  # type: ignore[assignment]

    def let_go(self) -> None:
        self._gone.set()


class Server:
    """The API, as several users call it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, user: str, path: str, method: str = "GET", **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, client=(f"10.0.0.{sum(user.encode()) % 250}", 4711))
        headers = {"authorization": f"Bearer {user}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:5681", headers=headers) as client:
            return await client.request(method, path, **more)


async def nothing(*_: Any) -> str:
    return ""


async def named(token: str) -> tuple[str, tuple[str, ...]]:
    return token, ()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", ManualClock())
    try:
        found = ResourceManager(store, {})
        await found.put(resource("{type: Mesh, name: default}"))
        yield found
    finally:
        await store.close()


async def test_others_and_health_are_answered_while_costly_requests_hold_all_turns(manager: ResourceManager) -> None:
    registry, held = CollectorRegistry(), Held()
    costly = metrics.of_costly_requests(registry)

    async def traffic(_: str) -> Mapping[str, ObservedTrafficSpec]:
        return held

    context = ApiContext(
        manager=manager,
        instance="cp",
        settings=ApiSettings(LocalAdmins(frozenset())),
        tokens=Tokens(issue=nothing, issue_user=nothing, verify=named),
        observation=Observation(meshes=lambda: ["default"], view=MeshView, traffic=traffic),
        costly=costly,
    )
    api, health = Server(create_app(context)), Server(diagnostics.create_app(registry, lambda: ""))
    limits = TurnLimits()
    users = [f"user-{index}" for index in range(limits.at_once // limits.each)]
    asked = limits.each + limits.waiting_each
    waiting = [aio.spawn(api(user, TRAFFIC), name="costly") for user in users for _ in range(asked)]
    try:
        while (costly.running, costly.waiting) != (limits.at_once, len(users) * limits.waiting_each):
            await asyncio.sleep(0)
        refused = await api(users[0], TRAFFIC)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert "costly requests that you have asked for" in refused.json()["detail"]
        assert (await api(users[0], "/meshes/default")).status_code == 200
        assert (
            await api("jane", "/meshes/default/dataplanes")
        ).status_code == 200  # this one is written out in a thread
        assert (await health("", "/healthy")).status_code == 200
        told = (await health("", "/metrics")).text
        assert 'kuma_api_costly_requests{state="running"} 4.0' in told
        assert "kuma_api_costly_requests_refused_total 1.0" in told
    finally:
        held.let_go()
        answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} == {200}
    assert (costly.running, costly.waiting) == (0, 0)
    assert b"api_costly_requests_refused_total 1.0" in generate_latest(registry)


@asynccontextmanager
async def as_user(user: str, turns: CostlyRequests) -> AsyncIterator[None]:
    before = ACTOR.set(user)
    try:
        async with turns.turn():
            yield
    finally:
        ACTOR.reset(before)


class Asking:
    """Somebody who asks for a turn, and says so when it has come."""

    def __init__(self, turns: CostlyRequests, user: str, came: list[str]) -> None:
        self.done = asyncio.Event()
        self.task = aio.spawn(self._ask(turns, user, came), name=user)

    async def _ask(self, turns: CostlyRequests, user: str, came: list[str]) -> None:
        async with as_user(user, turns):
            came.append(user)
            await self.done.wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_users_take_turns_and_none_has_all_of_them() -> None:
    turns, came = CostlyRequests(TurnLimits(at_once=3, each=2)), list[str]()
    asking = [Asking(turns, user, came) for user in "aaaaabbc"]
    await settle()
    assert came == ["a", "a", "b"]
    for finished in (0, 1, 5, 2):
        asking[finished].done.set()
        await settle()
    assert came == ["a", "a", "b", "a", "b", "c", "a"]
    for one in asking:
        one.done.set()
    await asyncio.gather(*(one.task for one in asking))
    assert (turns.running, turns.waiting) == (0, 0)


async def test_too_many_of_one_or_of_all_are_refused_and_who_goes_away_leaves_its_place() -> None:
    refused = list[str]()
    limits = TurnLimits(at_once=1, each=1, waiting=3, waiting_each=2)
    turns, came = CostlyRequests(limits, lambda: refused.append("one")), list[str]()
    asking = [Asking(turns, user, came) for user in "aaab"]
    await settle()
    for user, status in (("a", 429), ("c", 503)):
        with pytest.raises(Problem) as told:
            async with as_user(user, turns):
                pass
        assert told.value.status == status
    assert refused == ["one", "one"]
    await aio.stop([asking[1].task])
    asking.append(Asking(turns, "c", came))
    for one in asking:
        one.done.set()
    await asyncio.gather(*(one.task for one in asking if not one.task.cancelled()))
    assert sorted(came) == ["a", "a", "b", "c"]
    assert (turns.running, turns.waiting) == (0, 0)


async def test_a_turn_that_comes_to_somebody_who_goes_away_is_the_next_ones() -> None:
    turns, came = CostlyRequests(TurnLimits(at_once=1, each=1)), list[str]()
    first, second, third = (Asking(turns, user, came) for user in "abc")
    await settle()
    first.done.set()
    while not first.task.done():
        await asyncio.sleep(0)
    await aio.stop([second.task])  # its turn has just come, or is about to
    third.done.set()
    await asyncio.gather(first.task, third.task)
    assert came[-1] == "c"
    assert (turns.running, turns.waiting) == (0, 0)


async def test_a_turn_is_not_given_to_somebody_who_goes_away_as_another_ends() -> None:
    turns, came = CostlyRequests(TurnLimits(at_once=1, each=1)), list[str]()
    first, second, third = (Asking(turns, user, came) for user in "abc")
    await settle()
    first.done.set()  # it ends before whoever goes away has heard that
    second.task.cancel()
    third.done.set()
    await asyncio.gather(first.task, third.task)
    assert second.task.cancelled()
    assert came == ["a", "c"]
    assert (turns.running, turns.waiting) == (0, 0)


async def test_pages_and_routes_leave_threads_to_everybody_else() -> None:
    turns, counting = CostlyRequests(), threading.Lock()
    running, most = 0, 0
    limits = TurnLimits()
    together = threading.Barrier(limits.at_once)

    def look() -> None:
        nonlocal running, most
        with counting:
            running += 1
            most = max(most, running)
        together.wait(PATIENCE)  # each is there at the same time as the others
        with counting:
            running -= 1

    async def asked(user: str) -> None:
        ACTOR.set(user)
        await asyncio.gather(*(turns.do(look) for _ in range(10)))

    await asyncio.gather(*(aio.spawn(asked(user), name=user) for user in "ab"))
    assert most == limits.at_once
