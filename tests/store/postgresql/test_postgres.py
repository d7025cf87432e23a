"""What several processes over one PostgreSQL see of each other, and how a store bears that the database goes away."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo import postgres as servers
from demo.postgres import PASSWORD, Postgres
from kuma.base.clock import SystemClock
from kuma.base.errors import Conflict, Misconfigured, StoreCorrupt, Unavailable
from kuma.resources import kinds
from kuma.resources.models.coordination import InstanceSpec, LeaseSpec, RolloutProgressSpec
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Commit, Create, Delete, Expect, Listing, Put, Removed, Update
from kuma.store.sealing.encryption import AesGcmSealer, KeyFile
from kuma.store.sql import seal
from kuma.store.sql.postgresql.postgres import migrate_postgres, open_postgres
from kuma.store.sql.store import SqlStore
from tests.fakes.patience import PATIENCE
from tests.fakes.stores import open_store, postgres_server

Address = tuple[str, ...]
MESH = Resource(kinds.MESH.key("default"), MeshSpec())


def secret(name: str, data: bytes = b"x") -> Resource[SecretSpec]:
    return Resource(kinds.SECRET.key(name, "default"), SecretSpec(data=data))


@contextlib.asynccontextmanager
async def opened(address: Address) -> AsyncIterator[SqlStore]:
    store = await open_store(address, SystemClock())
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def two(postgres: Address) -> AsyncIterator[tuple[SqlStore, SqlStore]]:
    async with opened(postgres) as one, opened(postgres) as other:
        yield one, other


async def watch(store: SqlStore) -> AsyncGenerator[Listing | Commit, None]:
    async for event in store.watch():
        yield event


async def listed(store: SqlStore) -> AsyncGenerator[Listing | Commit, None]:
    """A watch that has told all that is stored, and goes on with changes."""
    found = watch(store)
    assert isinstance(await anext(found), Listing)
    return found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.02)


async def test_what_one_process_commits_another_is_told(two: tuple[SqlStore, SqlStore]) -> None:
    one, other = two
    watching = await listed(other)
    (mesh,) = await one.transact([Create(MESH)])
    commit = await anext(watching)
    assert isinstance(commit, Commit)
    assert commit.changes == (Put(mesh),)
    await one.transact([Delete(MESH.key)])
    commit = await anext(watching)
    assert isinstance(commit, Commit)
    assert commit.changes == (Removed(MESH.key),)
    await watching.aclose()


async def test_revisions_come_in_their_order_to_all_whoever_commits(two: tuple[SqlStore, SqlStore]) -> None:
    """And what they add up to is what is stored: neither half a transaction nor a change is missed."""
    writers = 4
    watching = [watch(store) for store in two]
    for following in watching:
        await anext(following)

    async def write(store: SqlStore, name: str) -> None:
        pair = await store.transact([Create(secret(f"{name}-{part}", b"0")) for part in "ab"])
        for number in range(1, 20):
            changed = [one.with_spec(SecretSpec(data=b"%d" % number)) for one in pair]
            pair = await store.transact([Update(one) for one in changed])

    await asyncio.gather(*(write(two[number % 2], str(number)) for number in range(writers)))
    (last,) = await two[0].transact([Create(MESH)])
    for following in watching:
        held: dict[str, bytes] = {}
        revision = 0
        async for commit in following:
            assert isinstance(commit, Commit)
            assert commit.revision > revision
            revision = commit.revision
            put = [change.resource for change in commit.changes if isinstance(change, Put)]
            held |= {resource.name: resource.spec.data for resource in put if resource.key != last.key}
            if Put(last) in commit.changes:  # who has fallen behind is told of several revisions together
                break
            for number in range(writers):
                assert held.get(f"{number}-a") == held.get(f"{number}-b")
        assert held == {f"{number}-{part}": b"19" for number in range(writers) for part in "ab"}
        await following.aclose()


async def test_expectations_hold_between_processes(two: tuple[SqlStore, SqlStore]) -> None:
    """Each of two expects that the other's resource is not there yet: one of them is refused."""
    for number in range(10):
        names = [f"{number}-{side}" for side in "ab"]
        done = await asyncio.gather(
            *(
                store.transact([Expect(secret(theirs).key, 0), Create(secret(ours))])
                for store, ours, theirs in zip(two, names, reversed(names), strict=True)
            ),
            return_exceptions=True,
        )
        assert [type(each) for each in done if isinstance(each, BaseException)] == [Conflict]


async def test_a_watch_goes_on_where_it_was_when_its_connections_are_cut(
    two: tuple[SqlStore, SqlStore], postgres: Address, postgres_instance: Postgres
) -> None:
    one, other = two
    watching = await listed(other)
    for round_number in range(3):
        cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
        postgres_instance.sql(f"{cut} AND pid <> pg_backend_pid()", postgres[-1])
        (stored,) = await stubbornly(one, secret(f"s{round_number}"))
        assert [change async for change in told(watching, stored)]
    await watching.aclose()


async def told(watching: AsyncIterator[Listing | Commit], wanted: Resource[SecretSpec]) -> AsyncIterator[Put]:
    """The change by which a watch tells of a resource."""
    async with asyncio.timeout(PATIENCE):
        async for commit in watching:
            assert isinstance(commit, Commit)
            if Put(wanted) in commit.changes:
                yield Put(wanted)
                return


async def stubbornly(store: SqlStore, resource: Resource[SecretSpec]) -> tuple[Resource[SecretSpec], ...]:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await store.transact([Create(resource)])
            except Unavailable:
                await asyncio.sleep(0.1)


async def test_while_the_database_is_stopped_it_says_so_and_goes_on_afterwards(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with servers.server() as instance:
        database = instance.create("kuma")
        await migrate_postgres(postgres_server(instance.port, database), key, anew=True)
        address = ("postgres", str(key), str(instance.port), database)
        async with opened(address) as one, opened(address) as other:
            (mesh,) = await one.transact([Create(MESH)])
            watching = watch(other)
            await anext(watching)
            for end in (instance.stop, instance.kill):
                await asyncio.to_thread(end)
                for attempt in (one.transact([Create(secret("x"))]), one.get(MESH.key), one.list("Mesh")):
                    with pytest.raises(Unavailable, match="cannot be used now"):
                        await attempt
                await until(lambda: bool(one.problem and other.problem))
                await asyncio.to_thread(instance.start)
                await until(lambda: not one.problem and not other.problem)
                (mesh,) = await one.transact([Update(mesh)])
                assert [change async for change in told(watching, mesh)]
            instance.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
            await asyncio.to_thread(instance.stop)
            await asyncio.to_thread(instance.start)
            await until(lambda: not one.problem)
            with pytest.raises(Unavailable):
                await one.transact([Update(mesh)])
            assert await one.get(MESH.key) == mesh
            instance.sql(f"SET default_transaction_read_only = off; ALTER DATABASE {database} RESET ALL")
            await asyncio.to_thread(instance.stop)
            await asyncio.to_thread(instance.start)
            await until(lambda: not one.problem and not other.problem)
            (mesh,) = await one.transact([Update(mesh)])
            assert [change async for change in told(watching, mesh)]
            await watching.aclose()


async def test_secrets_are_sealed_in_the_database(postgres: Address, postgres_instance: Postgres) -> None:
    async with opened(postgres) as store:
        await store.transact([Create(secret("a", b"PRIVATE KEY"))])
    rows = postgres_instance.sql("SELECT name, encode(spec, 'escape') FROM resources", postgres[-1])
    assert "a|" in rows
    assert "PRIVATE" not in rows


async def test_another_key_is_refused_and_a_missing_one(postgres: Address, tmp_path: Path) -> None:
    server = postgres_server(*postgres[2:])
    with pytest.raises(Misconfigured, match=r"all control planes over the database .* need the same one"):
        await open_postgres(server, SystemClock(), tmp_path / "none")
    await migrate_postgres(postgres_server(postgres[2], postgres[3]), Path(postgres[1]))
    foreign = tmp_path / "foreign"
    foreign.write_text("A" * 43 + "=\n")
    foreign.chmod(0o600)
    for attempt in (open_postgres(server, SystemClock(), foreign), migrate_postgres(server, foreign)):
        with pytest.raises(StoreCorrupt, match="KUMA_STORE_ENCRYPTION_KEY_FILE"):
            await attempt


async def test_a_database_that_is_not_ready_is_told_in_a_sentence(postgres_instance: Postgres, tmp_path: Path) -> None:
    key, clock = tmp_path / "key", SystemClock()
    server = postgres_server(postgres_instance.port, postgres_instance.create("unready"))
    with pytest.raises(Misconfigured, match="has no store yet; run: kuma-cp migrate up"):
        await open_postgres(server, clock, key)
    assert not key.exists()
    await asyncio.gather(migrate_postgres(server, key), migrate_postgres(server, key))
    await (await open_postgres(server, clock, key)).close()
    postgres_instance.sql("UPDATE alembic_version SET version_num = '9999'", server.database)
    for attempt in (open_postgres(server, clock, key), migrate_postgres(server, key)):
        with pytest.raises(Misconfigured, match="a schema that this version does not know"):
            await attempt
    postgres_instance.sql("DROP TABLE alembic_version", server.database)
    for attempt in (open_postgres(server, clock, key), migrate_postgres(server, key)):
        with pytest.raises(Misconfigured, match="belongs to another program: it has a table"):
            await attempt


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"port": 1}, "PostgreSQL at 127.0.0.1:1 cannot be used"),
        ({"password": "wrong-one"}, "password authentication failed"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
    ],
)
async def test_a_database_that_cannot_be_used_is_told_without_the_password(
    postgres: Address, change: dict[str, object], text: str
) -> None:
    server = replace(postgres_server(*postgres[2:]), **change)  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match=text) as refused:
        await open_postgres(server, SystemClock(), Path(postgres[1]))
    assert server.password not in str(refused.value) + repr(server)
    assert PASSWORD not in str(refused.value) + repr(server)


async def test_a_new_key_is_for_who_is_alone(postgres: Address) -> None:
    key = Path(postgres[1])
    before = key.read_bytes()
    async with opened(postgres) as one:
        await one.transact([Create(secret("a", b"PRIVATE"))])
        async with opened(postgres):
            with pytest.raises(Unavailable, match="other control planes use the database"):
                await one.rekey()
            KeyFile(key).prepare()
            with pytest.raises(Unavailable, match="not all control planes have the next key yet"):
                await one.rekey()
            assert key.read_bytes() == before
        await one.rekey()
        assert (await one.get(secret("a").key)).spec.data == b"PRIVATE"
    assert key.read_bytes() != before
    assert KeyFile(key).following() is None
    async with opened(postgres) as again:
        assert (await again.get(secret("a").key)).spec.data == b"PRIVATE"


async def test_of_two_keys_that_a_kill_has_left_the_one_in_use_stays(postgres: Address) -> None:
    """Sealing anew writes the new key first, then all rows at once, then drops the old key."""
    key = Path(postgres[1])
    old, new = key.read_text(), "A" * 43 + "=\n"
    async with opened(postgres) as one:
        await one.transact([Create(secret("a", b"PRIVATE"))])
    key.write_text(new + old)
    async with opened(postgres) as again:
        assert (await again.get(secret("a").key)).spec.data == b"PRIVATE"
        assert key.read_text() == old
        await again.rekey()
    renewed = key.read_text()
    key.write_text(renewed + old)
    async with opened(postgres) as again:
        assert (await again.get(secret("a").key)).spec.data == b"PRIVATE"
        assert key.read_text() == renewed


async def test_a_database_that_fails_while_sealing_anew_loses_no_secret(
    postgres: Address, postgres_instance: Postgres
) -> None:
    name = postgres[-1]
    postgres_instance.sql(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk'; END $$; "
        "CREATE TRIGGER broken BEFORE UPDATE ON meta FOR EACH ROW WHEN (OLD.name = 'seal') EXECUTE FUNCTION fail()",
        name,
    )
    async with opened(postgres) as one:
        await one.transact([Create(secret("before", b"PRIVATE"))])
        with pytest.raises(Unavailable):
            await one.rekey()
        postgres_instance.sql("DROP TRIGGER broken ON meta", name)
        await one.transact([Create(secret("after", b"PRIVATE"))])
    async with opened(postgres) as again:
        assert [each.spec.data for each in (await again.list("Secret")).items] == [b"PRIVATE", b"PRIVATE"]
    assert len(Path(postgres[1]).read_text().split()) == 1


BROKEN_UPDATE = (
    "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk'; END $$; "
    "CREATE TRIGGER broken BEFORE UPDATE ON meta FOR EACH ROW WHEN (OLD.name = 'seal') EXECUTE FUNCTION fail()",
    "DROP TRIGGER broken ON meta",
)
BROKEN_VACUUM = (
    "CREATE FUNCTION fail(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$; "
    "CREATE INDEX broken ON meta (fail(name)); "
    "CREATE OR REPLACE FUNCTION fail(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk'; END $$",
    "DROP INDEX broken",
)


@pytest.mark.parametrize(("breaks", "repairs"), [BROKEN_UPDATE, BROKEN_VACUUM], ids=["sealing", "vacuum"])
async def test_a_start_that_cannot_seal_anew_goes_on_with_all_keys_and_the_next_one_completes_it(
    postgres: Address, postgres_instance: Postgres, breaks: str, repairs: str
) -> None:
    key = Path(postgres[1])
    old, new = key.read_text(), "A" * 43 + "=\n"
    async with opened(postgres) as one:
        await one.transact([Create(MESH), Create(secret("a", b"PRIVATE"))])
    key.write_text(new + old)
    postgres_instance.sql(breaks, postgres[-1])
    async with opened(postgres) as one:
        assert (await one.get(secret("a").key)).spec.data == b"PRIVATE"
        await one.transact([Create(secret("b", b"PRIVATE"))])
    assert sorted(key.read_text().split()) == sorted([old.strip(), new.strip()])
    postgres_instance.sql(repairs, postgres[-1])
    async with opened(postgres) as one:
        assert [each.spec.data for each in (await one.list("Secret")).items] == [b"PRIVATE", b"PRIVATE"]
    assert key.read_text() == old


async def test_a_row_that_cannot_be_read_is_told_and_followed_again_once_it_can(
    two: tuple[SqlStore, SqlStore], postgres: Address, postgres_instance: Postgres
) -> None:
    one, other = two
    watching = await listed(other)
    postgres_instance.sql(
        "CREATE FUNCTION newer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.labels = 'x'; RETURN NEW; END $$; "
        "CREATE TRIGGER newer BEFORE INSERT ON resources FOR EACH ROW EXECUTE FUNCTION newer()",
        postgres[-1],
    )
    await one.transact([Create(MESH)])
    await until(lambda: "does not understand" in other.problem)
    postgres_instance.sql("UPDATE resources SET labels = '{}'", postgres[-1])
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await anext(watching), Commit)
    await until(lambda: not other.problem)
    await watching.aclose()


async def test_what_newer_control_planes_tell_is_taken_as_far_as_it_is_understood_and_stops_nothing(
    two: tuple[SqlStore, SqlStore], postgres: Address, postgres_instance: Postgres
) -> None:
    one, other = two
    watching = await listed(other)
    postgres_instance.sql(
        "CREATE FUNCTION newer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.spec = "
        "CASE NEW.kind WHEN 'ControlPlaneInstance' THEN "
        """convert_to(replace(convert_from(NEW.spec, 'UTF8'), '{', '{"zone": {"name": "a"},'), 'UTF8') """
        """ELSE convert_to('{"mesh": 7}', 'UTF8') END; RETURN NEW; END $$; """
        "CREATE TRIGGER newer BEFORE INSERT ON resources FOR EACH ROW WHEN (NEW.kind <> 'Mesh') "
        "EXECUTE FUNCTION newer()",
        postgres[-1],
    )
    started = datetime(2026, 1, 1, tzinfo=UTC)
    instance = Resource(kinds.INSTANCE.key("new"), InstanceSpec(started=started, written=started))
    progress = Resource(kinds.ROLLOUT_PROGRESS.key("new/default"), RolloutProgressSpec(mesh="default", instance="new"))
    lease = Resource(kinds.LEASE.key("leader"), LeaseSpec(holder="new"))
    await one.transact([Create(instance), Create(progress), Create(lease)])
    (mesh,) = await one.transact([Create(MESH)])
    told: dict[Key, Put | Removed] = {}
    async with asyncio.timeout(PATIENCE):
        while mesh.key not in told:
            commit = await anext(watching)
            told |= {each.resource.key if isinstance(each, Put) else each.key: each for each in commit_of(commit)}
    seen = told[instance.key]
    assert isinstance(seen, Put)
    assert seen.resource.spec == instance.spec
    assert told[progress.key] == Removed(progress.key)  # nothing is known of how far its proxies are
    assert lease.key not in told  # somebody leads, and it is not known who
    assert other.not_understood == {progress.key, lease.key}
    again = watch(other)
    listing = await anext(again)
    assert isinstance(listing, Listing)
    assert {resource.key for resource in listing.resources} == {instance.key, mesh.key}
    await one.transact([Delete(progress.key), Delete(lease.key)])
    await until(lambda: not other.not_understood)
    assert not other.problem
    for following in (watching, again):
        await following.aclose()


def commit_of(event: Listing | Commit) -> Sequence[Put | Removed]:
    assert isinstance(event, Commit)
    return event.changes


async def test_who_has_an_old_key_writes_nothing(
    two: tuple[SqlStore, SqlStore], postgres: Address, postgres_instance: Postgres
) -> None:
    """The store was sealed anew while its connections were cut: nobody could tell that it is used."""
    one, _ = two
    await one.transact([Create(MESH)])
    fresh = AesGcmSealer([b"k" * 32])
    sealed = seal.make(fresh).hex()
    postgres_instance.sql(f"UPDATE meta SET value = decode('{sealed}', 'hex') WHERE name = 'seal'", postgres[-1])
    with pytest.raises(StoreCorrupt, match="Put the right key file back"):
        await one.transact([Create(secret("a"))])
    assert (await one.list("Secret")).total == 0


async def test_an_empty_database_beside_its_key_is_no_new_store(postgres_instance: Postgres, tmp_path: Path) -> None:
    """As when the volume of a database is lost, and everything is started anew with the key that is left."""
    key, clock = tmp_path / "key", SystemClock()
    before, empty = (postgres_server(postgres_instance.port, postgres_instance.create(n)) for n in ("had", "emptied"))
    await migrate_postgres(before, key)
    await migrate_postgres(before, key)
    for _ in range(2):
        with pytest.raises(Misconfigured, match=r"kuma-cp restore FILE.*kuma-cp migrate up --new"):
            await migrate_postgres(empty, key)
        with pytest.raises(Misconfigured, match="has no store yet"):
            await open_postgres(empty, clock, key)
    await migrate_postgres(empty, key, anew=True)
    await (await open_postgres(empty, clock, key)).close()
