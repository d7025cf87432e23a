"""How often a proxy got a certificate is counted over its whole life."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.coordination.coordination import Alone
from kuma.pki.issuer import Identity
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec, Version
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.proxies.insights import FLUSH_INTERVAL, Insights, Record
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, dataplane, running
from tests.fakes.patience import PATIENCE

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEB = dataplane("web-01", "web")


def identity(serial: int) -> Identity:
    """All of them end at the same time, as those of a CA that ends before they would."""
    return Identity("ca-1", ("spiffe://default/web",), serial, NOW, NOW, NOW + timedelta(days=1), b"", b"")


def record(before: DataplaneInsightSpec = DataplaneInsightSpec()) -> Record:  # noqa: B008 - immutable
    return Record(WEB.key, "cp-1", NOW, Version(), before)


def count(found: Record) -> int:
    mtls = found.spec().mtls
    assert mtls is not None
    return mtls.certificate_regenerations


def test_certificates_with_the_same_end_are_counted_each() -> None:
    web = record()
    for serial in (1, 2, 3):
        assert web.certificate(identity(serial), ("ca-1",), NOW)
        assert not web.certificate(identity(serial), ("ca-1",), NOW + timedelta(seconds=5))
    assert count(web) == 3


def test_another_bundle_is_no_other_certificate() -> None:
    web = record()
    web.certificate(identity(1), ("ca-1",), NOW)
    assert web.certificate(identity(1), ("ca-1", "ca-2"), NOW + timedelta(hours=1))
    mtls = web.spec().mtls
    assert mtls is not None
    assert (mtls.certificate_regenerations, mtls.last_certificate_regeneration) == (1, NOW)


def test_the_count_outlives_a_time_without_certificate_and_a_reconnect() -> None:
    web = record()
    web.certificate(identity(1), ("ca-1",), NOW)
    web.certificate(None, (), NOW)
    assert web.spec().mtls is None
    again = record(web.spec())
    again.certificate(None, (), NOW)  # the authority fails at first
    assert again.spec().mtls is None
    again.certificate(identity(2), ("ca-1",), NOW)
    assert count(again) == 2
    assert count_of_next_life(again) == 3


def count_of_next_life(found: Record) -> int:
    following = record(found.spec())
    following.certificate(identity(3), ("ca-1",), NOW)
    return count(following)


async def test_the_count_goes_on_while_mutual_tls_goes_off_and_on(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        await cp.proxy(WEB)
        await cp.insight(WEB, lambda i: i.mtls and i.mtls.certificate_regenerations == 1)
        await cp.apply("{type: Mesh, name: default}")
        await cp.insight(WEB, lambda i: i.mtls is None)
        await cp.apply(MTLS)
        await cp.insight(WEB, lambda i: i.mtls and i.mtls.certificate_regenerations == 2)


def test_a_rejection_stored_without_a_field_of_its_type_is_read() -> None:
    stored = {
        "subscriptions": [{"id": "1", "status": {"lds": {"responsesRejected": "2"}, "lastRejection": "lds: a: b"}}]
    }
    lds = DataplaneInsightSpec.model_validate(stored).subscriptions[0].status.lds
    assert (lds.responses_rejected, lds.last_rejection) == (2, "a: b")


def test_a_rejection_is_told_of_the_stream_that_it_came_on() -> None:
    """Counters of streams that are kept no more are added to those of others; reasons are not."""
    old = record()
    old.counters[TypeUrl.LISTENER].rejected, old.counters[TypeUrl.LISTENER].rejection = 1, "port taken"
    new = record(record(record(old.spec()).spec()).spec()).spec()
    assert [s.status.lds.last_rejection for s in new.subscriptions] == ["", ""]
    assert sum(s.status.lds.responses_rejected for s in new.subscriptions) == 1


class Written:
    """A store that tells how many resources each transaction has written."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.sizes: asyncio.Queue[int] = asyncio.Queue()

    async def transact(self, operations: Any) -> Any:
        found = await self._store.transact(operations)
        self.sizes.put_nowait(len(operations))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_what_is_only_counted_of_many_is_written_some_at_a_time_and_what_happens_at_once(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    mesh, names = kinds.MESH.key("default"), [f"p{number}" for number in range(450)]
    await store.transact([Create(Resource(mesh, MeshSpec())), *(Create(dataplane(n, "web"), mesh) for n in names)])
    written, clock = Written(store), ManualClock()
    insights = Insights(cast(Any, written), clock, "cp-1", Alone())
    records = [await insights.open(kinds.DATAPLANE.key(name, "default"), Version()) for name in names]
    writing = aio.spawn(insights.run(), name="insights")

    async def sizes(number: int) -> list[int]:
        async with asyncio.timeout(PATIENCE):
            found = [await written.sizes.get() for _ in range(number)]
            while clock.sleepers == 0:
                await asyncio.sleep(0)
        return found

    assert await sizes(3) == [200, 200, 50]  # what is new is told
    for found in records:
        found.counters[TypeUrl.LISTENER].acked += 1
        insights.count(found)
    insights.note(records[-1])
    clock.advance(FLUSH_INTERVAL - 0.1)
    insights.count(records[0])
    clock.advance(0.1)
    assert await sizes(1) == [1]  # they go on counting: what they have counted is written when they no longer do
    clock.advance(FLUSH_INTERVAL)
    assert await sizes(1) == [200]
    clock.advance(FLUSH_INTERVAL)
    assert await sizes(1) == [200]
    await aio.stop([writing])
    assert written.sizes.get_nowait() == 49  # who ends leaves nothing out
    stored = (await store.list(kinds.DATAPLANE_INSIGHT.name)).items
    assert all(insight.spec.subscriptions[0].status.lds.responses_acknowledged == 1 for insight in stored)
    await store.close()


async def test_what_a_stream_counts_that_has_been_replaced_is_lost(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    mesh = kinds.MESH.key("default")
    await store.transact([Create(Resource(mesh, MeshSpec())), Create(WEB, mesh)])
    insights = Insights(store, SystemClock(), "cp-1", Alone())
    old = await insights.open(WEB.key, Version())
    new = await insights.open(WEB.key, Version())
    old.counters[TypeUrl.LISTENER].acked += 1
    insights.count(old)
    writing = aio.spawn(insights.run(), name="insights")
    await asyncio.sleep(0)
    await aio.stop([writing])
    stored = await store.get(new.key)
    assert [s.status.lds.responses_acknowledged for s in stored.spec.subscriptions] == [0, 0]
    await store.close()


async def test_of_a_dataplane_that_came_just_now_nothing_is_looked_up_and_what_is_there_even_so_is_replaced(
    tmp_path: Path,
) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    mesh = kinds.MESH.key("default")
    await store.transact([Create(Resource(mesh, MeshSpec())), Create(WEB, mesh)])
    for server in ("cp-1", "cp-2"):  # the second does not know of the first
        insights = Insights(store, SystemClock(), server, Alone())
        writing = aio.spawn(insights.run(), name="insights")
        found = await insights.open(WEB.key, Version(), is_new=True)
        assert found.stored is None
        await asyncio.sleep(0)
        await aio.stop([writing])
        stored = await store.get(found.key)
        assert [s.control_plane_instance_id for s in stored.spec.subscriptions] == [server]
    await store.close()


class Held:
    """A store that writes nothing before it may."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked, self.may_write = asyncio.Event(), asyncio.Event()

    async def transact(self, operations: Any) -> Any:
        self.asked.set()
        await self.may_write.wait()
        return await self._store.transact(operations)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_a_proxy_that_comes_back_while_its_last_stream_is_being_written_goes_on_from_there(
    tmp_path: Path,
) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    mesh = kinds.MESH.key("default")
    await store.transact([Create(Resource(mesh, MeshSpec())), Create(WEB, mesh)])
    held = Held(store)
    insights = Insights(cast(Any, held), SystemClock(), "cp-1", Alone())
    first = await insights.open(WEB.key, Version())
    first.certificate(identity(1), ("ca-1",), NOW)
    insights.close(first, None)
    writing = aio.spawn(insights.run(), name="insights")
    async with asyncio.timeout(PATIENCE):
        await held.asked.wait()
    again = await insights.open(WEB.key, Version())
    held.may_write.set()
    again.certificate(identity(2), ("ca-1",), NOW)
    assert (count(again), len(again.spec().subscriptions)) == (2, 2)
    await aio.stop([writing])
    await store.close()


async def test_what_is_being_written_when_it_is_told_to_end_is_written(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    mesh = kinds.MESH.key("default")
    await store.transact([Create(Resource(mesh, MeshSpec())), Create(WEB, mesh)])
    held = Held(store)
    insights = Insights(cast(Any, held), SystemClock(), "cp-1", Alone())
    ended = await insights.open(WEB.key, Version())
    insights.close(ended, None)
    writing = aio.spawn(insights.run(), name="insights")
    async with asyncio.timeout(PATIENCE):
        await held.asked.wait()
    writing.cancel()
    held.may_write.set()
    await aio.stop([writing])
    assert not (await store.get(ended.key)).spec.online
    await store.close()
