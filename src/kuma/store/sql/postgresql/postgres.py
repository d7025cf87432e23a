"""The store over PostgreSQL, which several control planes use at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import sqlalchemy as sa
import structlog
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured, StoreCorrupt, Unavailable
from kuma.store.sealing.encryption import AesGcmSealer, KeyFile, Sealer
from kuma.store.sql import change_log, migrations, schema, seal
from kuma.store.sql.change_log import KEPT_REVISIONS
from kuma.store.sql.dialect import Traits, reason
from kuma.store.sql.postgresql.follower import CHANNEL, Follower
from kuma.store.sql.store import SqlStore

log = structlog.get_logger(__name__)

_ERRORS = (DBAPIError, PoolTimeout, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What is raised when the database cannot be used: some of it before SQLAlchemy can translate it."""
_SERVER_SETTINGS = {
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",  # of a process that is stopped while all others wait for it
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}
_COMMAND_SECONDS = 60.0
APPLICATION = "kuma-cp"
_MIGRATION = 0x6B756D61
"""Number of the lock that one who migrates holds: "kuma"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    """Place of a database, and the way in which it is connected to."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    tls: ssl.SSLContext | None = None
    connect_seconds: float = 5.0
    idle: int = 20
    """Connections that are kept."""
    most: int = 20
    """Connections at once; 0 for any number."""
    least: int = 0
    """Connections that are made at the start."""
    lifetime: float = 3600.0
    """Seconds."""
    name: str = field(default_factory=lambda: f"{APPLICATION} {secrets.token_hex(4)}")
    """By which the database knows which process is connected."""

    def __str__(self) -> str:
        return f"the database {self.database} of PostgreSQL at {self.host}:{self.port}"

    def engine(self) -> AsyncEngine:
        """Returns a pool of connections, none of which is made yet."""
        url = sa.URL.create(
            "postgresql+asyncpg", self.user, self.password, self.host, self.port, database=self.database
        )
        kept = max(1, min(self.idle, self.most) if self.most else self.idle)
        return create_async_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=kept,
            max_overflow=self.most - kept if self.most else -1,
            pool_recycle=self.lifetime,
            connect_args={
                "ssl": self.tls or False,
                "timeout": self.connect_seconds,
                "command_timeout": _COMMAND_SECONDS,
                "server_settings": {"application_name": self.name, **_SERVER_SETTINGS},
            },
        )


async def open_postgres(
    server: PostgresServer, clock: Clock, key_file: Path, *, kept: int = KEPT_REVISIONS
) -> SqlStore:
    """Returns the store in a database that `migrate` has prepared. Of the revisions, `kept` are remembered.

    Raises:
        Misconfigured: the database cannot be used, has no store or one of another version, or the key is missing.
        StoreCorrupt: the key is not the one that its Secrets are sealed with.
    """
    keys = KeyFile(key_file)
    async with opened(server) as engine:
        async with engine.begin() as connection:
            await check_schema(connection, server)
            known = await _meta(connection)
        if "seal" not in known:
            raise Misconfigured(f"{server} has no store yet; run: kuma-cp migrate up")
        sealer = _sealer(keys, _loaded(keys, server), known["seal"])
        await asyncio.gather(*(_warm(engine) for _ in range(server.least)))
        store = SqlStore(engine, _Postgres(engine), clock, sealer, keys, revision=int(known["revision"]), kept=kept)
        await _finish_rekey(store)
    follower = Follower(engine, clock, _ERRORS, store.catch_up, lambda problem: setattr(store, "problem", problem))
    store.on_gap(follower.look)
    following = aio.spawn(follower.run(), name="follower of the store")
    store.close_with(lambda: None, first=lambda: aio.stop([following]))
    return store


async def _finish_rekey(store: SqlStore) -> None:
    """Complete what an end in the middle of sealing anew has left; if that fails now, the next start does it.

    Until then all keys stay in the key file, and open whatever they have sealed.
    """
    try:
        await store.finish_rekey()
    except (*_ERRORS, Unavailable) as error:
        log.warning("old keys stay in the key file: sealing anew is completed at the next start", reason=reason(error))


async def migrate_postgres(server: PostgresServer, key_file: Path, *, anew: bool = False) -> None:
    """Bring the database to this version's schema; a new store in it gets a new key in `key_file`.

    `anew` begins a new store under a key that is there already, on purpose.

    Raises:
        Misconfigured: the database cannot be used, or is of another program or a newer version; it, or the key, is
            missing.
        StoreCorrupt: the key is not the one that its Secrets are sealed with.
    """
    keys = KeyFile(key_file)
    async with opened(server) as engine:
        async with engine.begin() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION)))
            await _check_owner(connection, server)
            try:
                await connection.run_sync(migrations.upgrade)
            except CommandError as error:
                raise Misconfigured(_unknown(server, error)) from None
            known = await _meta(connection)
            if "seal" in known:
                seal.check(AesGcmSealer(_loaded(keys, server)), known["seal"])
            elif keys.exists() and not anew:
                raise Misconfigured(
                    f"{server} holds no store, but {key_file} is there, the key of one: a new store would begin "
                    "without any mesh's mutual TLS. Put the database back, or a backup with `kuma-cp restore FILE`. "
                    "To begin anew on purpose, or under a key that you have made, run `kuma-cp migrate up --new`"
                )
            else:
                await _begin(connection, AesGcmSealer(keys.load() if keys.exists() else keys.begin()))
        keys.settle()
        await engine.dispose()


@asynccontextmanager
async def opened(server: PostgresServer) -> AsyncIterator[AsyncEngine]:
    """Opens a pool of connections, which is closed if something goes wrong with it."""
    engine = server.engine()
    try:
        yield engine
    except BaseException as error:
        await engine.dispose()
        if isinstance(error, _ERRORS):
            raise Misconfigured(f"{server} cannot be used: {reason(error)}") from None
        raise


async def _warm(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(sa.select(sa.func.pg_sleep(0.05)))  # so that each takes one of its own


async def _check_owner(connection: AsyncConnection, server: PostgresServer) -> None:
    tables = set(await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()))
    theirs = tables & set(schema.metadata.tables)
    if theirs and "alembic_version" not in tables:
        raise Misconfigured(
            f"{server} belongs to another program: it has a table {min(theirs)} that is not ours. Give this control "
            "plane a database of its own: KUMA_STORE_POSTGRES_DB_NAME"
        )


async def check_schema(connection: AsyncConnection, server: PostgresServer) -> None:
    """See that there is a store of this version.

    Raises:
        Misconfigured: there is not.
    """
    try:
        newest = await connection.run_sync(migrations.is_newest)
    except CommandError as error:
        raise Misconfigured(_unknown(server, error)) from None
    if newest is None:
        await _check_owner(connection, server)
        raise Misconfigured(f"{server} has no store yet; run: kuma-cp migrate up")
    if not newest:
        raise Misconfigured(f"{server} has the schema of an older version; run: kuma-cp migrate up")


def _unknown(server: PostgresServer, error: CommandError) -> str:
    return (
        f"{server} has a schema that this version does not know: {error}. It is of a newer version, or of something "
        "else. Install that version here, too, or give this control plane another database"
    )


async def _meta(connection: AsyncConnection) -> dict[str, bytes]:
    rows = await connection.execute(sa.select(schema.meta.c.name, schema.meta.c.value))
    return {row.name: row.value for row in rows}


async def _begin(connection: AsyncConnection, sealer: Sealer) -> None:
    values = {"revision": b"0", "seal": seal.make(sealer)}
    await connection.execute(sa.insert(schema.meta), [{"name": n, "value": v} for n, v in values.items()])


def _loaded(keys: KeyFile, server: PostgresServer) -> tuple[bytes, ...]:
    if not keys.exists():
        raise Misconfigured(
            f"the key-encryption key {keys.path} is missing: all control planes over {server} need the same one. Copy "
            "the file from another of them, or from a backup, or point KUMA_STORE_ENCRYPTION_KEY_FILE at it"
        )
    return keys.load()


def _sealer(key_file: KeyFile, keys: Sequence[bytes], sealed: bytes) -> AesGcmSealer:
    """The sealer of a store, which seals with the key that its seal opens with, and opens with all of them.

    Of keys that a failure has left, each may have sealed something: none is dropped before all is sealed anew.

    Raises:
        StoreCorrupt: it is none of these.
    """
    following = key_file.following()
    if following is not None and following not in keys:  # all others may have begun to seal with it meanwhile
        with contextlib.suppress(StoreCorrupt):
            seal.check(AesGcmSealer([following]), sealed)
            key_file.settle_on(following)
            return AesGcmSealer([following])
    sealer = seal.led(AesGcmSealer(keys), sealed)
    if len(keys) > 1:
        key_file.save(sealer.keys)
    return sealer


class _Postgres:
    """PostgreSQL: writers of all processes wait for each other at one row."""

    traits = Traits(unavailable=_ERRORS, snapshot={"isolation_level": "REPEATABLE READ"})

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, connection: AsyncConnection) -> bytes | None:
        return await change_log.lock(connection)

    async def begin_reading(self, connection: AsyncConnection) -> None:
        """Its snapshot is of one moment."""

    async def announce(self, connection: AsyncConnection, revision: int) -> None:
        await connection.execute(sa.select(sa.func.pg_notify(CHANNEL, str(revision))))

    async def others(self, connection: AsyncConnection) -> int:
        others = (
            "SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE datname = current_database() "
            "AND starts_with(application_name, :ours) AND application_name <> current_setting('application_name')"
        )
        return int((await connection.execute(sa.text(others), {"ours": APPLICATION})).scalar_one())

    async def scrub(self) -> None:
        async with self._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            for table in (schema.resources, schema.meta):
                await connection.execute(sa.text(f"VACUUM FULL {table.name}"))


def tls_context(mode: str, ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Tells how the database is to prove who it is: `disable`, `verifyNone`, `verifyCa` or `verifyFull`.

    Raises:
        Misconfigured: a file cannot be used.
    """
    if mode == "disable":
        return None
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.check_hostname = mode == "verifyFull"
    context.verify_mode = ssl.CERT_NONE if mode == "verifyNone" else ssl.CERT_REQUIRED
    try:
        if ca is not None:
            context.load_verify_locations(ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(file) for file in (ca, certificate, key) if file is not None)
        raise Misconfigured(f"store.postgres.tls: {files} cannot be used: {error.strerror or error}") from None
    return context
