"""The door through which everything is changed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from kuma.base.clock import SystemClock
from kuma.base.errors import InvalidResource, NotFound
from kuma.resources import codec, kinds
from kuma.resources.labels import REGISTERED
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Key, Resource
from kuma.store.manager import Decision, ResourceManager
from kuma.store.protocol import Create, Store, Update
from kuma.store.sql.embedded.sqlite import open_sqlite

MESH = Resource(kinds.MESH.key("default"), MeshSpec())
DATAPLANE = """
type: Dataplane
mesh: default
name: web-01
networking: {address: 127.0.0.1, inbound: [{port: 80, servicePort: 8080, tags: {kuma.io/service: web}}]}
"""


class MeshBrings:
    """Rules that create a Secret with every Mesh, and refuse one called `bad`."""

    async def on_put(self, old: Any, new: Any, store: Store) -> Decision:
        if new.labels.get("bad"):
            raise InvalidResource.of("labels", "bad")
        made = Resource(kinds.SECRET.key("made", new.name), SecretSpec(data=b"x"))
        operations: Sequence[Any] = () if old else (Create(made, new.key),)
        return Decision(tuple(operations), ("careful",))

    async def on_delete(self, old: Any, store: Store) -> Decision:
        return Decision()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    yield ResourceManager(store, {"Mesh": MeshBrings()})
    await store.close()


def dataplane() -> Resource[Any]:
    return codec.parse(next(codec.documents(DATAPLANE)))


async def test_a_resource_needs_its_mesh(manager: ResourceManager) -> None:
    with pytest.raises(InvalidResource, match="mesh: mesh of name default is not found"):
        await manager.put(dataplane())


async def test_what_rules_bring_along_is_stored_with_the_resource(manager: ResourceManager) -> None:
    outcome = await manager.put(MESH)
    assert (outcome.created, outcome.warnings) == (True, ("careful",))
    assert await manager.find(kinds.SECRET.key("made", "default")) is not None


async def test_what_rules_refuse_changes_nothing(manager: ResourceManager) -> None:
    with pytest.raises(InvalidResource):
        await manager.put(replace(MESH, labels={"bad": "yes"}))
    assert (await manager.list("Mesh")).total == (await manager.list("Secret")).total == 0


async def test_what_is_there_already_is_not_written_again(manager: ResourceManager) -> None:
    first = await manager.put(MESH)
    again = await manager.put(MESH)
    assert (again.created, again.resource, again.warnings) == (False, first.resource, ("careful",))


async def test_a_replacement_keeps_when_it_was_created(manager: ResourceManager) -> None:
    first = (await manager.put(MESH)).resource
    second = (await manager.put(replace(MESH, labels={"team": "a"}))).resource
    assert (second.version, second.creation_time) == (2, first.creation_time)


async def test_a_mesh_with_dataplanes_stays(manager: ResourceManager) -> None:
    await manager.put(MESH)
    await manager.put(dataplane())
    with pytest.raises(InvalidResource, match="mesh: unable to delete mesh, there are still some dataplanes attached"):
        await manager.delete(MESH.key)
    await manager.delete(dataplane().key)
    await manager.delete(MESH.key)
    assert (await manager.list("Secret")).total == 0


async def test_deleting_what_is_not_there(manager: ResourceManager) -> None:
    with pytest.raises(NotFound):
        await manager.delete(MESH.key)


class Overtaking:
    """Rules in the middle of which somebody else is faster, once."""

    def __init__(self) -> None:
        self.looked = 0

    async def on_put(self, old: Any, new: Any, store: Store) -> Decision:
        self.looked += 1
        if self.looked == 1:
            await store.transact([Update(replace(old, labels={"by": "another"}))])
        return Decision()

    async def on_delete(self, old: Any, store: Store) -> Decision:
        return Decision()


async def test_a_writer_that_was_overtaken_looks_again(manager: ResourceManager) -> None:
    await manager.put(MESH)
    rules = Overtaking()
    outcome = await ResourceManager(manager.store, {"Mesh": rules}).put(replace(MESH, labels={"by": "me"}))
    assert (outcome.resource.version, dict(outcome.resource.labels)) == (3, {"by": "me"})
    assert rules.looked == 2


async def test_the_log_has_every_warning(manager: ResourceManager) -> None:
    with capture_logs() as logs:
        assert (await manager.put(MESH)).warnings == ("careful",)
    expected = {"kind": "Mesh", "mesh": "", "name": "default", "warning": "careful", "log_level": "warning"}
    assert logs == [{**expected, "event": "taken with a warning"}]


async def test_many_writers_of_one_mesh_all_come_to_their_turn(manager: ResourceManager) -> None:
    async def write(writer: int) -> None:
        for number in range(5):
            text = f"{{type: Mesh, name: default, labels: {{writer: w{writer}, number: n{number}}}}}"
            await manager.put(codec.parse(next(codec.documents(text))))

    await asyncio.gather(*(write(writer) for writer in range(16)))
    written = await manager.get(kinds.MESH.key("default"))
    assert written.version == 16 * 5, "every writer's every change is one, and none was made twice"
    assert written.labels["number"] == "n4", "the last of some writer"


async def test_who_declares_a_dataplane_is_not_its_proxy(manager: ResourceManager) -> None:
    """What is exported where proxies have brought it along does not go with proxies that never came here."""
    await manager.put(MESH)
    exported = replace(dataplane(), labels={REGISTERED: "proxy", "team": "a"})
    assert dict((await manager.put(exported)).resource.labels) == {"team": "a"}
    brought = replace(exported, key=kinds.DATAPLANE.key("web-02", "default"))
    await manager.change(brought.key, lambda _: brought)
    assert not (await manager.put(brought)).created
    assert REGISTERED in (await manager.get(brought.key)).labels, "applying what is exported changes nothing"


class Asked:
    """A store that counts what it is asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.gets = 0

    async def get(self, key: Key) -> Any:
        self.gets += 1
        return await self._store.get(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_what_seems_new_is_looked_for_only_if_it_is_there(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    asked = Asked(store)
    manager = ResourceManager(cast(Store, asked), {})
    await manager.put(Resource(kinds.MESH.key("default"), MeshSpec()))
    asked.gets, shown, declared = 0, list[Any](), dataplane()

    def make(stored: Resource[Any] | None) -> Resource[Any]:
        shown.append(stored)
        return replace(declared, labels={"seen": str(stored is not None).lower()})

    first = await manager.change(declared.key, make, seems_new=True)
    assert (first.created, first.resource.version, shown, asked.gets) == (True, 1, [None], 0)

    again = await manager.change(declared.key, make, seems_new=True)
    assert (again.created, again.resource.version, again.resource.labels) == (False, 2, {"seen": "true"})
    assert (shown[1:], asked.gets) == ([None, first.resource], 1)
    await store.close()
