"""Two control planes that change a guarded mesh at once: both have judged before either of them writes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given

from kuma.admission.dataplane_rules import DataplaneRules
from kuma.admission.mesh_rules import MeshRules
from kuma.admission.permission_rules import PermissionRules
from kuma.admission.token_rules import TokenRules
from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.errors import Conflict, KumaError, WeakeningRefused
from kuma.base.turns import Turns
from kuma.policy.workloads import Surroundings
from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.store.manager import Outcome, ResourceManager
from kuma.store.protocol import AnyResource, Commit, Create, Listing, Operation, Page, Store
from kuma.store.views import Views
from tests.admission.test_weakening_guard import GUARDED, NARROW
from tests.fakes.control_plane import ALLOW_ALL, MTLS, dataplane, resource
from tests.fakes.examples import examples
from tests.fakes.stores import open_store

Change = Callable[[ResourceManager], Awaitable[object]]


class Meeting:
    """Where two writers wait until both have come, or have nothing to write; then the first one goes first."""

    def __init__(self) -> None:
        self.come = (asyncio.Event(), asyncio.Event())
        self.gone = asyncio.Event()


class MeetingStore:
    """A store whose next transaction waits at a meeting."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._meeting: tuple[Meeting, int] | None = None

    @contextlib.contextmanager
    def at(self, meeting: Meeting, place: int) -> Iterator[None]:
        self._meeting = meeting, place
        try:
            yield
        finally:
            self._meeting = None
            meeting.come[place].set()
            if place == 0:
                meeting.gone.set()

    async def get(self, key: Any) -> AnyResource:
        return await self._store.get(key)

    async def list(self, kind: str, mesh: str | None = None, **more: Any) -> Page:
        return await self._store.list(kind, mesh, **more)

    async def transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        if self._meeting is None:
            return await self._store.transact(operations)
        (meeting, place), self._meeting = self._meeting, None
        meeting.come[place].set()
        await (meeting.come[1] if place == 0 else meeting.gone).wait()
        try:
            return await self._store.transact(operations)
        finally:
            if place == 0:
                meeting.gone.set()

    def watch(self, since: int | None = None) -> AsyncIterator[Listing | Commit]:
        return self._store.watch(since)

    async def close(self) -> None:
        await self._store.close()


class Writer:
    """What of a control plane judges changes and stores them."""

    def __init__(self, store: Store) -> None:
        self.store = MeetingStore(store)
        self.views = Views(store)
        self.follow()
        turns, clock = Turns(), SystemClock()
        permissions = PermissionRules(self.views, turns)
        dataplanes = DataplaneRules(lambda _: Surroundings({}, frozenset()), permissions.permissions, turns)
        self.manager = ResourceManager(
            self.store,
            {
                kinds.MESH.name: MeshRules(clock),
                kinds.DATAPLANE.name: dataplanes,
                kinds.SECRET.name: TokenRules(),
                kinds.TRAFFIC_PERMISSION.name: permissions,
                kinds.MESH_TRAFFIC_PERMISSION.name: permissions,
            },
        )

    def follow(self) -> None:
        self._following = aio.spawn(self.views.run(), name="views")

    async def follow_no_more(self) -> None:
        await aio.stop([self._following])


class Two:
    """Two writers of the same mesh."""

    def __init__(self, one: Writer, other: Writer) -> None:
        self.one, self.other = one, other

    async def apply(self, *texts: str, mesh: str = "default") -> None:
        """Stores resources, and returns once both have seen them."""
        for text in texts:
            stored = (await self.one.manager.put(of_mesh(text, mesh), allow_weakening=True)).resource
            for writer in (self.one, self.other):
                views = writer.views
                await views.until(lambda: stored.key.kind == "Secret" or views.holds(stored))  # noqa: B023 - at once

    async def until_seen(self, mesh: str) -> None:
        """Returns once both have seen the permissions of a mesh that are stored."""
        stored = await permissions(self.one.store, mesh)
        for views in (self.one.views, self.other.views):
            await views.until(lambda: stored == {**views.view(mesh).permissions, **views.view(mesh).mesh_permissions})  # noqa: B023 - at once

    async def at_once(self, first: Change, second: Change) -> tuple[object, object]:
        """Lets both judge before either writes, the first one first; returns what became of each."""
        meeting = Meeting()

        async def change(writer: Writer, place: int, made: Change) -> object:
            with writer.store.at(meeting, place):
                return await done(made(writer.manager))

        return await asyncio.gather(change(self.one, 0, first), change(self.other, 1, second))


async def permissions(store: Store, mesh: str) -> dict[str, AnyResource]:
    """What is stored; here the names of both kinds differ."""
    pages = [await store.list(kind.name, mesh) for kind in (kinds.TRAFFIC_PERMISSION, kinds.MESH_TRAFFIC_PERMISSION)]
    return {one.name: one for page in pages for one in page.items}


async def done(change: Awaitable[object]) -> object:
    """What became of a change: what refused it, if something did."""
    try:
        return await change
    except KumaError as error:
        return error


@contextlib.asynccontextmanager
async def two(address: tuple[str, ...]) -> AsyncIterator[Two]:
    """Two control planes: of SQLite, both in the one process that may use it."""
    async with contextlib.AsyncExitStack() as stack:
        stores = [await open_store(address, SystemClock()) for _ in range(1 if address[0] == "sqlite" else 2)]
        for store in stores:
            stack.push_async_callback(store.close)
        writers = [Writer(store) for store in (stores[0], stores[-1])]
        for writer in writers:
            stack.push_async_callback(writer.follow_no_more)
        yield Two(*writers)


@pytest.fixture
def sqlite(tmp_path: Path) -> tuple[str, ...]:
    return "sqlite", str(tmp_path / "kuma.db")


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def both(address: tuple[str, ...]) -> AsyncIterator[Two]:
    async with two(address) as found:
        yield found


@pytest.fixture
async def one_database(sqlite: tuple[str, ...]) -> AsyncIterator[Two]:
    async with two(sqlite) as found:
        yield found


def of_mesh(text: str, mesh: str) -> Resource[Any]:
    return resource(text.replace("name: default", f"name: {mesh}").replace("mesh: default", f"mesh: {mesh}"))


def rule(name: str, action: str, caller: str = "kind: Mesh", where: str = "kind: Mesh") -> str:
    return (
        f"{{type: MeshTrafficPermission, mesh: default, name: {name}, spec: {{targetRef: {{{where}}}, from: ["
        f"{{targetRef: {{{caller}}}, default: {{action: {action}}}}}]}}}}"
    )


def put(text: str, mesh: str = "default") -> Change:
    return lambda manager: manager.put(of_mesh(text, mesh))


def delete(text: str, mesh: str = "default") -> Change:
    return lambda manager: manager.delete(of_mesh(text, mesh).key)


DEV, WEB = "kind: MeshSubset, tags: {env: dev}", "kind: MeshService, name: web"
EVERYBODY, NOBODY = rule("everybody", "Allow"), rule("nobody", "Deny")


async def test_a_denial_does_not_go_while_what_it_denies_comes(both: Two) -> None:
    """Whom it denies is admitted by what was not there yet when the deletion was judged."""
    for first, second in itertools.permutations((delete(NOBODY), put(EVERYBODY))):
        await both.apply(GUARDED, NOBODY)
        found = await both.at_once(first, second)
        assert [type(each) for each in found] != [WeakeningRefused, WeakeningRefused]
        assert isinstance(found[1], WeakeningRefused), found
        await done(both.one.manager.delete(resource(EVERYBODY).key, allow_weakening=True))
        await both.until_seen("default")


async def test_a_mesh_does_not_go_with_the_guard_that_it_has_just_got(both: Two) -> None:
    await both.apply(MTLS)
    guarded, deleted = await both.at_once(put(GUARDED), delete(MTLS))
    assert isinstance(guarded, Outcome)
    assert isinstance(deleted, WeakeningRefused)


async def test_revocations_do_not_go_with_one_that_has_just_come(both: Two) -> None:
    revoked = "{{type: Secret, mesh: default, name: dataplane-token-revocations-default, data: '{}'}}"
    nothing, one = revoked.format(""), revoked.format("b25l")
    await both.apply(GUARDED, nothing)
    added, deleted = await both.at_once(put(one), delete(nothing))
    assert isinstance(added, Outcome)
    assert isinstance(deleted, WeakeningRefused)


async def test_a_dataplane_is_not_edited_by_permissions_of_before(both: Two) -> None:
    """Its editor has not heard yet of a permission that was made elsewhere."""
    web, db = dataplane("dp", "web"), dataplane("dp", "db")
    other = both.other
    await both.apply(GUARDED)
    await both.one.manager.put(web)
    await other.views.until(lambda: bool(other.views.view("default").dataplanes))
    await other.follow_no_more()
    await both.one.manager.put(resource(rule("db", "Allow", DEV, "kind: MeshService, name: db")))
    assert isinstance(await done(other.manager.put(db)), Conflict), "it judges again until it has heard"
    other.follow()
    assert isinstance(await done(other.manager.put(db)), WeakeningRefused)


POOL = [
    EVERYBODY, NOBODY, rule("dev", "Deny", DEV), rule("trial", "AllowWithShadowDeny", DEV),
    rule("web", "Allow", where="kind: MeshService, name: web"), ALLOW_ALL, NARROW,
    rule("not-web", "Deny", DEV, "kind: MeshService, name: web"),
]  # fmt: skip
changes = st.tuples(st.sampled_from((put, delete)), st.sampled_from(POOL))
meshes = (f"mesh-{number}" for number in itertools.count())


@given(st.sets(st.sampled_from(POOL)), changes, changes)
@example({NOBODY}, (put, EVERYBODY), (delete, NOBODY))
@example({ALLOW_ALL, NARROW}, (delete, NARROW), (put, ALLOW_ALL))
@examples(30, expected=(HealthCheck.function_scoped_fixture,))
async def test_whatever_is_changed_at_once_is_as_if_one_had_come_after_the_other(
    one_database: Two, before: set[str], first: tuple[Any, str], second: tuple[Any, str]
) -> None:
    """So no two changes weaken more together than they may one after the other."""
    mesh = next(meshes)
    created = [of_mesh(text, mesh) for text in (GUARDED, *sorted(before))]
    await one_database.one.store.transact([Create(each, created[0].key if each.mesh else None) for each in created])
    await one_database.until_seen(mesh)
    made = [change(text, mesh) for change, text in (first, second)]
    serial = [await rehearsed(one_database.one, mesh, made, order) for order in ((0, 1), (1, 0))]
    found = await one_database.at_once(*made)
    after = await permissions(one_database.one.store, mesh)
    assert ([became(each) for each in found], shown(after)) in serial


async def rehearsed(writer: Writer, mesh: str, made: list[Change], order: tuple[int, int]) -> tuple[list[str], Any]:
    """What becomes of changes that are made one after the other."""
    manager = writer.manager.rehearsal()
    found = {number: became(await done(made[number](manager))) for number in order}
    return [found[0], found[1]], shown(await permissions(manager.store, mesh))


def became(result: object) -> str:
    return type(result).__name__ if isinstance(result, KumaError) else "made"


def shown(some: dict[str, AnyResource]) -> dict[str, Any]:
    return {name: one.spec for name, one in some.items()}
