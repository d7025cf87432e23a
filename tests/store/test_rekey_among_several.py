"""The key-encryption key is changed while several control planes use the store: each can read at every moment."""

import asyncio
import base64
import contextlib
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.errors import Misconfigured, StoreCorrupt, Unavailable
from kuma.resources import kinds
from kuma.resources.models.coordination import InstanceSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Update, find
from kuma.store.sealing.encryption import KeyFile, new_key
from kuma.store.sql.postgresql.postgres import open_postgres
from kuma.store.sql.store import SqlStore
from tests.fakes.stores import postgres_server

Address = tuple[str, ...]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def secret(name: str) -> Resource[SecretSpec]:
    return Resource(kinds.GLOBAL_SECRET.key(name), SecretSpec(data=b"PRIVATE"))


class Plane:
    """One control plane's store and key file; `reads` counts how often it has read a Secret."""

    def __init__(self, number: int, store: SqlStore, key: Path) -> None:
        self.number = number
        self.store = store
        self.key = key
        self.next = key.with_name(f"{key.name}.next")
        self.reads = 0

    async def says(self) -> None:
        """Do what a heartbeat does: look for keys, and say which there are."""
        key = kinds.INSTANCE.key(f"cp-{self.number}")
        said = Resource(key, InstanceSpec(started=NOW, written=NOW, keys=tuple(self.store.keyring.look())))
        known = await find(self.store, key)
        await self.store.transact([Update(known.with_spec(said.spec)) if known else Create(said)])

    async def read(self) -> None:
        """Read a Secret again and again."""
        while True:
            assert (await self.store.get(secret("a").key)).spec.data == b"PRIVATE"
            self.reads += 1


@pytest.fixture
async def three(postgres: Address, tmp_path: Path) -> AsyncIterator[list[Plane]]:
    """Three control planes, on three machines: each with a copy of the key file."""
    async with contextlib.AsyncExitStack() as stack:
        planes = []
        for number in range(3):
            key = tmp_path / str(number) / "kuma.db.key"
            key.parent.mkdir()
            shutil.copy(postgres[1], key)
            store = await open_postgres(postgres_server(*postgres[2:]), SystemClock(), key)
            stack.push_async_callback(store.close)
            planes.append(Plane(number, store, key))
        yield planes


async def test_all_read_all_the_time_and_keep_the_new_key_alone(three: list[Plane]) -> None:
    first, *others = three
    old = first.key.read_bytes()
    await first.store.transact([Create(secret("a"))])
    reading = [aio.spawn(plane.read(), name="reader") for plane in three]
    for plane in three:
        await plane.says()
    made = KeyFile(first.key).prepare()
    await first.says()
    with pytest.raises(Unavailable, match=r"not all control planes have the next key yet.*: cp-1, cp-2"):
        await first.store.rekey()
    for plane in others:
        shutil.copy(made, plane.next)
        await plane.says()
    following = made.read_bytes()
    assert all(plane.key.read_bytes() == old for plane in three)
    await first.store.rekey()
    for plane in three:
        await plane.store.transact([Create(secret(f"of-{plane.number}"))])  # sealed with the new key, by each
        await plane.says()
    reads = [plane.reads for plane in three]
    while any(plane.reads == before for plane, before in zip(three, reads, strict=True)):
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in reading)
    await aio.stop(reading)
    for plane in three:
        assert (plane.key.read_bytes(), plane.next.exists()) == (following, False)
        assert {(await plane.store.get(secret(f"of-{n}").key)).spec.data for n in range(3)} == {b"PRIVATE"}


async def test_who_was_stopped_meanwhile_begins_with_the_new_key_if_it_was_given_one(
    three: list[Plane], postgres: Address
) -> None:
    first, second, third = three
    await first.store.transact([Create(secret("a"))])
    made = KeyFile(first.key).prepare()
    shutil.copy(made, second.next)
    for plane in (second, third):
        await plane.store.close()
    await first.says()
    await first.store.rekey()
    again = await open_postgres(postgres_server(*postgres[2:]), SystemClock(), second.key)
    assert (await again.get(secret("a").key)).spec.data == b"PRIVATE"
    await again.close()
    assert second.key.read_bytes() == first.key.read_bytes()
    with pytest.raises(StoreCorrupt, match="Put the right key file back"):
        await open_postgres(postgres_server(*postgres[2:]), SystemClock(), third.key)


async def test_a_next_key_is_not_made_twice_and_not_used_while_others_can_read_it(three: list[Plane]) -> None:
    first = three[0]
    KeyFile(first.key).prepare()
    with pytest.raises(Misconfigured, match="there is a next key already"):
        KeyFile(first.key).prepare()
    before = list(first.store.keyring.look())
    assert len(before) == 2
    three[1].next.write_bytes(first.next.read_bytes())
    three[1].next.chmod(0o644)
    assert len(three[1].store.keyring.look()) == 1


def test_workers_share_a_key_file_and_all_settle_on_the_next_key(tmp_path: Path) -> None:
    """Two processes do it at once again and again; the file is whole whenever anybody looks."""
    path = tmp_path / "kuma.db.key"
    files = [KeyFile(path), KeyFile(path)]
    files[0].save([new_key()])
    with ThreadPoolExecutor(2) as pool:
        for _ in range(100):
            following = new_key()
            path.with_name(f"{path.name}.next").write_bytes(base64.b64encode(following))
            path.with_name(f"{path.name}.next").chmod(0o600)
            settling = [pool.submit(file.settle_on, following) for file in files]
            while not all(done.done() for done in settling):
                assert len(files[0].load()) == 1
            for done in settling:
                done.result()
            assert (files[0].load(), files[0].following()) == ((following,), None)
