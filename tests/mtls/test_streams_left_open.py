"""What is stored of streams whose control plane has gone: the leader closes them, and takes no other one for gone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kuma.base import aio
from kuma.coordination.coordination import Alone
from kuma.resources import kinds
from kuma.resources.models.coordination import InstanceSpec
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec, Subscription, Version
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Commit, Create, Delete, Put, Update
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.sql.store import SqlStore
from kuma.xds.proxies.insights import Insights
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import dataplane, running
from tests.fakes.patience import PATIENCE

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DATAPLANES = [dataplane(f"web-{number}", "web") for number in range(3)]
OTHER = Resource(kinds.INSTANCE.key("other"), InstanceSpec(started=NOW, written=NOW))


class Follower(Alone):
    """A control plane that does not lead, until a test makes it."""

    leads = False


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    found = await open_sqlite(tmp_path / "kuma.db", ManualClock())
    try:
        yield found
    finally:
        await found.close()


async def until(clock: ManualClock, holds: Callable[[], object], step: float = 1) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            clock.advance(step)
            await asyncio.sleep(0.02)


def insight(name: str, server: str) -> Resource[DataplaneInsightSpec]:
    subscription = Subscription(id="1", control_plane_instance_id=server, connect_time=NOW)
    spec = DataplaneInsightSpec(subscriptions=(subscription,))
    return Resource(kinds.DATAPLANE_INSIGHT.key(name, "default"), spec)


async def test_the_leader_closes_them_in_one_transaction_and_nobody_else(store: SqlStore) -> None:
    clock, coordination = ManualClock(), Follower()
    await store.transact([Create(Resource(kinds.MESH.key("default"), MeshSpec())), *map(Create, DATAPLANES)])
    await store.transact([Create(insight(each.name, "gone"), each.key) for each in DATAPLANES[:2]])
    commits: list[Commit] = []
    store.on_commit(commits.append)
    insights = Insights(store, clock, "here", coordination)
    task = aio.spawn(insights.run(), name="insights")
    await insights.open(DATAPLANES[2].key, Version())
    await until(clock, lambda: commits)  # it has looked before it writes what is its own
    assert [[change.resource.name for change in one.changes if isinstance(change, Put)] for one in commits] == [
        ["web-2"]
    ]
    coordination.leads = True
    insights.take_stock_again()
    await until(clock, lambda: len(commits) > 1)
    closed = [change.resource for change in commits[1].changes if isinstance(change, Put)]
    assert [(one.name, one.spec.online) for one in closed] == [("web-0", False), ("web-1", False)]
    await aio.stop([task])


async def test_a_dataplane_stays_whose_proxy_has_moved_although_nothing_was_heard_of_that(tmp_path: Path) -> None:
    clock = ManualClock()
    moved, left = DATAPLANES[:2]
    grace = {"port": 0, "dataplane_deregistration_delay": "10h"}
    async with running(tmp_path, clock, xds_server=grace) as cp:
        store, views = cp.parts.manager.store, cp.parts.views
        for described in (moved, left):
            await cp.come_and_gone(described)
        key, stored = kinds.DATAPLANE_INSIGHT.key(moved.name, "default"), None
        async with asyncio.timeout(PATIENCE):
            while stored is None or stored.spec.online or not stored.spec.subscriptions:
                clock.advance(1)
                await asyncio.sleep(0.02)
                stored = await cp.parts.manager.find(key)
        (elsewhere, _) = await store.transact([Update(stored.with_spec(insight("", "other").spec)), Create(OTHER)])
        await until(clock, lambda: left.name not in views.view("default").dataplanes, step=600)
        assert moved.name in views.view("default").dataplanes
        await store.transact([Update(elsewhere.with_spec(stored.spec)), Delete(OTHER.key)])
        await until(clock, lambda: moved.name not in views.view("default").dataplanes, step=600)
