"""TLS towards PostgreSQL: what each mode demands of the server, and the certificate of the client."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kuma.app.serving import server_certificate
from kuma.base.clock import SystemClock
from kuma.base.errors import Misconfigured
from kuma.store.sql.postgresql.postgres import PostgresServer, open_postgres, tls_context
from tests.fakes import cas
from tests.fakes.stores import open_store, postgres_server
from tests.fakes.tls_front import tls_front

Address = tuple[str, ...]
STARTS = open_store
CLIENT = """
[req]
distinguished_name=dn
[ dn ]
[ ext ]
basicConstraints=CA:FALSE
extendedKeyUsage=clientAuth
"""


async def connect(postgres: Address, port: int, tls: ssl.SSLContext | None) -> None:
    plain = postgres_server(port, postgres[3])
    server = PostgresServer(
        host="127.0.0.1", port=port, user=plain.user, password=plain.password, database=plain.database, tls=tls
    )
    await (await open_postgres(server, SystemClock(), Path(postgres[1]))).close()


@pytest.mark.parametrize("named", ["127.0.0.1", "db.example"])
async def test_each_mode_demands_what_it_says(postgres: Address, tmp_path: Path, named: str) -> None:
    files = server_certificate.ensure(tmp_path / "db", [named], datetime.now(UTC))
    other = server_certificate.ensure(tmp_path / "other", [named], datetime.now(UTC))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.chain, files.key)
    async with tls_front(context, int(postgres[2])) as port:
        with pytest.raises(Misconfigured):
            await connect(postgres, port, tls_context("disable", None, None, None))
        await connect(postgres, port, tls_context("verifyNone", None, None, None))
        await connect(postgres, port, tls_context("verifyCa", files.ca, None, None))
        for wrong in ("verifyCa", "verifyFull"):
            with pytest.raises(Misconfigured, match="certificate verify failed"):
                await connect(postgres, port, tls_context(wrong, other.ca, None, None))
        full = tls_context("verifyFull", files.ca, None, None)
        if named == "127.0.0.1":
            await connect(postgres, port, full)
        else:
            with pytest.raises(Misconfigured, match=r"IP address mismatch"):
                await connect(postgres, port, full)
    with pytest.raises(Misconfigured):  # a server without TLS
        await connect(postgres, int(postgres[2]), tls_context("verifyNone", None, None, None))


async def test_a_certificate_of_the_client(postgres: Address, tmp_path: Path) -> None:
    files = server_certificate.ensure(tmp_path / "db", ["127.0.0.1"], datetime.now(UTC))
    cas.root(tmp_path, "clients")
    cas.intermediate(tmp_path, "client", "clients", CLIENT)
    certificate, key = tmp_path / "client.crt", tmp_path / "client.key"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "clients.crt"))
    context.load_cert_chain(files.chain, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    async with tls_front(context, int(postgres[2])) as port:
        await connect(postgres, port, tls_context("verifyFull", files.ca, certificate, key))
        with pytest.raises(Misconfigured):
            await connect(postgres, port, tls_context("verifyFull", files.ca, None, None))


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"store\.postgres\.tls: .*/none cannot be used: No such file"):
        tls_context("verifyCa", tmp_path / "none", None, None)
