"""A stream lives no longer than its token."""

import asyncio
import contextlib
import sqlite3
from datetime import timedelta
from pathlib import Path

import grpc
import jwt

from kuma.base import aio
from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.resources.secret import SecretSpec
from kuma.store.protocol import Create
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE

WEB, DB = dataplane("web-01", "web"), dataplane("db-01", "db")


def revocation(*tokens: str) -> Resource[SecretSpec]:
    listed = ",".join(jwt.decode(token, options={"verify_signature": False})["jti"] for token in tokens)
    key = kinds.SECRET.key("dataplane-token-revocations-default", "default")
    return Resource(key, SecretSpec(data=listed.encode()))


async def revoke(cp: Running, *tokens: str) -> None:
    await cp.apply_resource(revocation(*tokens))


async def test_a_revoked_token_ends_its_stream_and_no_other(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        stolen = cp.token("web-01")
        web, db = await cp.proxy(WEB, stolen), await cp.proxy(DB, cp.token("db-01"))
        await cp.settled(2)
        await revoke(cp, stolen)
        error = await web.failure()
        assert (error.code, "has been revoked" in error.details) == (grpc.StatusCode.UNAUTHENTICATED, True)
        again = await cp.proxy(WEB, stolen)
        assert "has been revoked" in (await again.failure()).details
        assert again.certificate == b""
        assert db.connected
        assert DB.key in cp.parts.proxies


async def test_a_token_that_is_revoked_while_its_proxy_arrives_gets_nothing(tmp_path: Path) -> None:
    def writing() -> int:
        return sum(task.get_name() == "store transaction" for task in asyncio.all_tasks())

    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        stolen = cp.token("web-01")
        with contextlib.closing(sqlite3.connect(tmp_path / "kuma.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # nothing is written until it ends
            revoking = aio.spawn(cp.parts.manager.store.transact([Create(revocation(stolen))]), name="revoking")
            async with asyncio.timeout(PATIENCE):
                while writing() < 1:
                    await asyncio.sleep(0.01)
                web = await cp.proxy(WEB, stolen)
                while writing() < 2:  # its token has been looked at, and its Dataplane waits to be written
                    await asyncio.sleep(0.01)
            other.execute("ROLLBACK")
        await revoking
        error = await web.failure()
        assert (error.code, "has been revoked" in error.details) == (grpc.StatusCode.UNAUTHENTICATED, True)
        assert web.certificate == b""


async def test_without_its_signing_key_a_token_holds_no_longer(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        web = await cp.proxy(WEB, cp.token("web-01"))
        await cp.settled(1)
        await cp.parts.manager.delete(kinds.SECRET.key("dataplane-token-signing-key-default-1", "default"))
        assert "a key that mesh" in (await web.failure()).details


async def test_a_stream_ends_when_its_token_does(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        web = await cp.proxy(WEB, cp.token("web-01", valid_for=timedelta(hours=1)))
        db = await cp.proxy(DB, cp.token("db-01", valid_for=timedelta(hours=3)))
        await cp.settled(2)
        clock.advance(1800)
        await asyncio.sleep(0.05)
        assert WEB.key in cp.parts.proxies
        for _ in range(4):  # the clock is looked at in pieces
            clock.advance(600)
            await asyncio.sleep(0.02)
        assert "has expired" in (await web.failure()).details
        assert db.connected


async def test_a_stream_goes_on_if_the_clock_is_set_back_before_its_token_begins(tmp_path: Path) -> None:
    """It was valid when the stream began. One that is revoked meanwhile ends nevertheless."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        web = await cp.proxy(WEB, cp.token("web-01"))
        stolen = cp.token("db-01")
        db = await cp.proxy(DB, stolen)
        await cp.settled(2)
        clock.jump(-86400)
        await revoke(cp, stolen)
        assert "has been revoked" in (await db.failure()).details
        assert web.connected
