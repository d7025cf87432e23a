"""Control planes ask each other whether the store can be used, by gRPC's health checking protocol."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest

from demo.processes import free_ports
from kuma.app.serving import server_certificate
from kuma.xds.bootstrap.server_names import ServerNames
from kuma.xds.stream import store_health


@contextlib.asynccontextmanager
async def answering(directory: Path, *, can_use_store: bool) -> AsyncIterator[str]:
    """A control plane with a certificate under the CA in a directory, as far as it answers this."""
    made = server_certificate.ensure(directory, ["cp.example"], datetime.now(UTC))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((store_health.handler(lambda: can_use_store),))
    pair = [(made.key.read_bytes(), made.chain.read_bytes())]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


def names(directory: Path) -> ServerNames:
    made = server_certificate.ensure(directory, ["cp.example"], datetime.now(UTC))
    return ServerNames.of(made.chain.read_bytes(), made.ca.read_bytes())


@pytest.mark.parametrize("can_use_store", [True, False])
async def test_what_another_says_counts_whatever_the_rest_does(tmp_path: Path, can_use_store: bool) -> None:
    (closed,) = free_ports(1)
    async with answering(tmp_path, can_use_store=can_use_store) as address:
        found = await store_health.any_can_use_it([f"127.0.0.1:{closed}", address], names(tmp_path))
    assert found is can_use_store


async def test_who_has_no_certificate_of_ours_does_not_count(tmp_path: Path) -> None:
    async with answering(tmp_path / "theirs", can_use_store=True) as address:
        assert not await store_health.any_can_use_it([address], names(tmp_path / "ours"))
