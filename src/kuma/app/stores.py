"""The store that the settings choose: how it is opened, migrated, saved and put back."""

from __future__ import annotations

from pathlib import Path

from kuma.app.configuration.settings import Settings
from kuma.app.configuration.store_settings import PostgresSection
from kuma.app.serving import server_certificate
from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured
from kuma.store.sql.embedded import backup
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.sql.postgresql import postgres_backup
from kuma.store.sql.postgresql.postgres import PostgresServer, migrate_postgres, open_postgres, tls_context
from kuma.store.sql.store import SqlStore


async def open_store(settings: Settings, clock: Clock) -> SqlStore:
    """Opens the store; see `open_sqlite` and `open_postgres`.

    Raises:
        Misconfigured: there is neither a store nor its key, where a control plane has run before.
    """
    if settings.store.type == "postgres":
        return await open_postgres(_server(settings), clock, settings.encryption_key)
    _check_not_lost(settings)
    return await open_sqlite(settings.database, clock, settings.encryption_key)


def _check_not_lost(settings: Settings) -> None:
    """Checks that no new store begins beside what a control plane has left; `open_sqlite` looks at store and key."""
    key, given = settings.work_dir / server_certificate.KEY, settings.general.tls_key_file
    own = (settings.audit_file, *(() if given is not None and given.expanduser() == key else (key,)))
    left = next(filter(_holds_something, own), None)
    if left is not None and not settings.database.exists() and not settings.encryption_key.exists():
        raise Misconfigured(
            f"{settings.database} and its key {settings.encryption_key} are missing, but {left} is there, of a control "
            "plane that has run here: a new store would begin without any mesh's mutual TLS. Put the key back, and the "
            "database with its -wal or a backup with `kuma-cp restore FILE`. To begin anew on purpose, run "
            "`kuma-cp migrate up --new`"
        )


def _holds_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


async def migrate(settings: Settings, clock: Clock, *, anew: bool) -> None:
    """Brings the store to this version's schema; `anew` makes a new store under a key that is there."""
    if settings.store.type == "postgres":
        await migrate_postgres(_server(settings), settings.encryption_key, anew=anew)
    else:
        if not anew:
            _check_not_lost(settings)
        await (await open_sqlite(settings.database, clock, settings.encryption_key, anew=anew)).close()


async def save(settings: Settings, target: Path) -> None:
    """Copies the store to a file; see `backup.backup`."""
    if settings.store.type == "postgres":
        await postgres_backup.backup(_server(settings), target)
    else:
        backup.backup(settings.database, target)


async def put_back(settings: Settings, source: Path) -> None:
    """Puts a backup, of whichever kind of store, in the place of the store; see `backup.restore`."""
    if settings.store.type == "postgres":
        replaced = settings.database.with_name(settings.database.name + backup.REPLACED)
        await postgres_backup.restore(source, _server(settings), settings.encryption_key, replaced)
    else:
        backup.restore(source, settings.database, settings.encryption_key)


def described(settings: Settings) -> str:
    """Returns the store, as a person is told of it."""
    return str(_server(settings)) if settings.store.type == "postgres" else str(settings.database)


def _server(settings: Settings) -> PostgresServer:
    chosen: PostgresSection = settings.store.postgres
    tls = chosen.tls
    return PostgresServer(
        host=chosen.host,
        port=chosen.port,
        user=chosen.user,
        password=chosen.password.get_secret_value(),
        database=chosen.db_name,
        tls=tls_context(tls.mode, _expanded(tls.ca_path), _expanded(tls.cert_path), _expanded(tls.key_path)),
        connect_seconds=chosen.connection_timeout,
        idle=chosen.max_idle_connections,
        most=chosen.max_open_connections,
        least=chosen.min_open_connections,
        lifetime=chosen.max_connection_lifetime.seconds,
    )


def _expanded(path: Path | None) -> Path | None:
    return path.expanduser() if path else None
