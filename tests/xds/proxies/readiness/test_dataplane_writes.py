"""Writing what is found out of proxies: a change that comes alone at once, those that come together in one commit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.resources import kinds
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Create, Update
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.views import Views
from kuma.xds.envoy.services import serving_label
from kuma.xds.proxies.readiness.dataplane_writes import DataplaneWrites
from tests.fakes.control_plane import dataplane
from tests.fakes.patience import PATIENCE

MESH = Resource(kinds.MESH.key("default"), MeshSpec())
WEB = [dataplane(f"web-{number}", "web", port=80 + number) for number in range(4)]


class Mesh:
    """Dataplanes of which none serves yet, and who writes that they do; it pauses until it is told to go on."""

    def __init__(self, views: Views, clock: SystemClock, pause_each: float, batch: int) -> None:
        self.views = views
        self.pauses: list[float] = []
        self.go_on = asyncio.Event()
        self.writes = DataplaneWrites(
            views._store,
            views,
            clock,
            "not written",
            self._as_serving,
            pause_each=pause_each,
            batch=batch,
            is_urgent=serving_label.stops,
            pause=self._pause,
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.go_on.wait()
        self.go_on.clear()

    def _as_serving(self, key: Key) -> Resource[DataplaneSpec] | None:
        found = self.views.view("default").dataplanes[key.name]
        return None if serving_label.is_serving(found) else serving_label.as_serving(found)

    @property
    def serving(self) -> set[str]:
        return {n for n, found in self.views.view("default").dataplanes.items() if serving_label.is_serving(found)}

    async def until_paused(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.pauses) < times:
                await asyncio.sleep(0)


@asynccontextmanager
async def _mesh(directory: Path, pause_each: float = 0.0625, batch: int = 200) -> AsyncIterator[Mesh]:
    clock = SystemClock()
    store = await open_sqlite(directory / "kuma.db", clock)
    await store.transact([Create(MESH), *(Create(serving_label.as_not_serving(one), MESH.key) for one in WEB)])
    views = Views(store)
    mesh = Mesh(views, clock, pause_each, batch)
    tasks = [aio.spawn(views.run(), name="views"), aio.spawn(mesh.writes.run(), name="writes")]
    async with asyncio.timeout(PATIENCE):
        await views.until(lambda: len(views.view("default").dataplanes) == len(WEB))
    try:
        yield mesh
    finally:
        await aio.stop(tasks)
        await store.close()


async def test_the_first_is_written_at_once_and_further_ones_are_collected_the_longer_the_more(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as mesh:
        mesh.writes.look(WEB[0].key)
        await mesh.until_paused(1)
        assert mesh.serving == {"web-0"}
        for one in WEB[1:]:
            mesh.writes.look(one.key)
        mesh.go_on.set()
        await mesh.until_paused(2)
        assert mesh.serving == {one.name for one in WEB}
        assert mesh.pauses == [0.0625, 0.0625 * 3], "those three went in one write"


async def test_they_are_collected_while_they_come(tmp_path: Path) -> None:
    async with _mesh(tmp_path, pause_each=60.0) as mesh:
        mesh.writes.look(WEB[0].key)
        for number in (1, 2):
            await mesh.until_paused(number)
            mesh.writes.look(WEB[number].key)
            mesh.go_on.set()
        await mesh.until_paused(3)
        assert mesh.serving == {"web-0"}
        mesh.go_on.set()  # and none has come
        await mesh.until_paused(4)
        assert mesh.serving == {"web-0", "web-1", "web-2"}


async def test_who_cannot_wait_has_what_was_collected_written(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as mesh:
        mesh.writes.look(WEB[0].key)
        await mesh.until_paused(1)
        mesh.writes.look(WEB[1].key)
        assert mesh.serving == {"web-0"}
        assert await mesh.writes.catch_up() == 1
        assert mesh.serving == {"web-0", "web-1"}
        assert len(mesh.pauses) == 1, "it pauses still"


async def test_who_takes_the_place_of_one_that_ends_at_another_control_plane_is_written_at_once(tmp_path: Path) -> None:
    async with _mesh(tmp_path, pause_each=60.0) as mesh:
        mesh.writes.look(WEB[0].key)
        await mesh.until_paused(1)
        mesh.writes.look(WEB[1].key)
        assert mesh.serving == {"web-0"}
        ended = serving_label.as_ended(mesh.views.view("default").dataplanes["web-0"])
        await mesh.views._store.transact([Update(ended)])
        await mesh.until_paused(2)
        assert mesh.serving == {"web-1"}


async def test_who_cannot_wait_waits_for_what_is_being_written_already(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as mesh:
        mesh.writes.look(WEB[0].key)
        await mesh.until_paused(1)
        mesh.writes.look(WEB[1].key)
        first = aio.spawn(mesh.writes.catch_up(), name="first")
        await asyncio.sleep(0)
        await mesh.writes.catch_up()
        assert mesh.serving == {"web-0", "web-1"}
        await first


async def test_what_somebody_has_begun_to_write_who_is_gone_is_written(tmp_path: Path) -> None:
    async with _mesh(tmp_path, batch=1) as mesh:
        mesh.writes.look(WEB[0].key)
        await mesh.until_paused(1)
        for one in WEB[1:]:
            mesh.writes.look(one.key)
        gone = aio.spawn(mesh.writes.catch_up(), name="gone")
        await asyncio.sleep(0)
        await aio.stop([gone])
        async with asyncio.timeout(PATIENCE):
            while mesh.serving != {one.name for one in WEB}:
                mesh.go_on.set()
                await asyncio.sleep(0)
