"""A stream lives no longer than its token."""

import asyncio
import contextlib
import sqlite3
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
import httpx
import jwt
from structlog.testing import capture_logs

from kuma.base import aio
from kuma.base.errors import KumaError, Unauthenticated
from kuma.base.tls.trust import NOBODY
from kuma.base.turns import Turns
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import TokenInsight
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Create
from kuma.store.sql.store import SqlStore
from kuma.tokens.dataplane_tokens import DataplaneClaims
from kuma.xds.envoy.services import serving_label
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.stream.revocation import TokenRevocation
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

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


async def test_no_certificate_is_issued_after_a_revocation_though_the_stream_has_not_ended_yet(tmp_path: Path) -> None:
    """Of thousands of streams a revoked one is ended after a moment: here never, as nobody looks at them."""
    async with running(tmp_path, without="token revocation") as cp:
        await cp.apply(MTLS)
        await cp.apply_resource(WEB)
        token = cp.token("web-01")
        web = await cp.proxy(WEB, token, bring=False)
        await cp.settled(1)
        first = web.certificate
        await revoke(cp, token)
        await cp.apply_resource(dataplane("web-01", "another"))  # which takes another certificate
        error = await web.failure()
        assert (error.code, "has been revoked" in error.details) == (grpc.StatusCode.UNAUTHENTICATED, True)
        assert web.certificate == first
    assert (tmp_path / "audit.jsonl").read_text().count('"certificate issued"') == 1


class _Gated:
    """The states of meshes, of which what a proxy runs is made only once it may be: of large meshes it takes long."""

    def __init__(self, meshes: Meshes) -> None:
        self._meshes = meshes
        self.opened = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meshes, name)

    async def entries(self, *about: Any) -> Any:
        await self.opened.wait()
        return await self._meshes.entries(*about)


async def test_no_certificate_is_issued_for_what_its_token_does_not_allow_though_the_stream_has_not_ended_yet(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        await cp.apply_resource(WEB)
        web = await cp.proxy(WEB, cp.token(service="web"), bring=False)
        await cp.settled(1)
        (served,) = cp.parts.proxies
        gated: Any = _Gated(served._meshes)
        served._meshes = gated
        await cp.apply_resource(dataplane("web-01", "another"))
        await cp.looked_around()
        gated.opened.set()
        error = await web.failure()
        assert (error.code, "kuma.io/service" in error.details) == (grpc.StatusCode.PERMISSION_DENIED, True)
    issued = [line for line in (tmp_path / "audit.jsonl").read_text().splitlines() if '"certificate issued"' in line]
    assert not [line for line in issued if "/another" in line]


class Stream:
    """One that somebody has by a token, and that takes long to look at."""

    credential = ""
    token = DataplaneClaims("default")

    def __init__(self, name: str) -> None:
        self.key = kinds.DATAPLANE.key(name, "default")
        self.reason: KumaError | None = None

    def end(self, reason: KumaError) -> None:
        self.reason = reason


async def test_others_have_their_turn_while_the_tokens_of_many_streams_are_looked_at(tmp_path: Path) -> None:
    """Each takes a signature: thousands in one go would hold up everything else for seconds."""
    looked_at = list[int]()
    turns = 0

    def check(_: Key, __: str) -> None:
        time.sleep(0.02)  # longer than a turn, on any machine
        looked_at.append(turns)
        raise Unauthenticated("revoked")

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        revoking = TokenRevocation(cp.parts.views, Proxies(), cp.clock, check, Turns())
        streams = [Stream(f"web-{number}") for number in range(5)]
        with contextlib.ExitStack() as stack:
            for stream in streams:
                stack.enter_context(revoking.watched(stream))
            tasks = [aio.spawn(revoking.run(), name="revoking"), aio.spawn(others(), name="others")]
            await revoke(cp, cp.token("web-0"))
            async with asyncio.timeout(PATIENCE):
                while not all(stream.reason for stream in streams):
                    await asyncio.sleep(0.01)
            await aio.stop(tasks)
    assert len(looked_at) == len(set(looked_at)) == 5


async def test_secrets_that_are_not_of_tokens_have_none_looked_at(tmp_path: Path) -> None:
    looked_at = list[Key]()
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        revoking = TokenRevocation(cp.parts.views, Proxies(), cp.clock, lambda key, _: looked_at.append(key), Turns())
        stream = Stream("web-0")
        task = aio.spawn(revoking.run(), name="revoking")
        with revoking.watched(stream):
            await cp.apply_resource(Resource(kinds.SECRET.key("other", "default"), SecretSpec(data=b"x")))
            await cp.looked_around()
            before = len(looked_at)
            await cp.apply_resource(Resource(kinds.SECRET.key("other", "default"), SecretSpec(data=b"y")))
            await cp.looked_around()
            assert len(looked_at) == before
            await revoke(cp, cp.token("web-0"))
            async with asyncio.timeout(PATIENCE):
                while len(looked_at) == before:
                    await asyncio.sleep(0.01)
        await aio.stop([task])


async def test_a_token_that_is_revoked_while_its_proxy_arrives_gets_nothing(tmp_path: Path) -> None:
    def is_written(store: SqlStore, key: Key) -> bool:
        """Whether somebody waits until this is stored."""
        return any(
            isinstance(operation, Create) and operation.resource.key == key
            for asked in store._transactions.unanswered
            for operation in asked.operations
        )

    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        stolen, store = cp.token("web-01"), cp.parts.manager.store
        assert isinstance(store, SqlStore)
        with contextlib.closing(sqlite3.connect(tmp_path / "kuma.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # nothing is written until it ends
            revoking = aio.spawn(store.transact([Create(revocation(stolen))]), name="revoking")
            async with asyncio.timeout(PATIENCE):
                while not is_written(store, revocation(stolen).key):
                    await asyncio.sleep(0.01)
                web = await cp.proxy(WEB, stolen)
                while not is_written(
                    store, WEB.key
                ):  # its token has been looked at, and its Dataplane waits to be written
                    await asyncio.sleep(0.01)
            other.execute("ROLLBACK")
        await revoking
        error = await web.failure()
        assert (error.code, "has been revoked" in error.details) == (grpc.StatusCode.UNAUTHENTICATED, True)
        assert web.certificate == b""


async def test_a_token_is_verified_once_while_its_stream_begins(tmp_path: Path) -> None:
    """Of thousands that come back at once each is: what a signature costs is paid once as long as no key changes."""
    verified = 0

    def look(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal verified
        verified += event == "call" and frame.f_code is jwt.PyJWS._verify_signature.__code__

    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        web = await cp.proxy(WEB)
        sys.setprofile(look)
        try:
            await web.until(lambda: web.certificate)
        finally:
            sys.setprofile(None)
        assert verified == 1


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


async def test_the_end_of_a_token_is_told_weeks_before_and_once(tmp_path: Path) -> None:
    """Of one that lives shortly it is told in the second half of its life."""
    clock = ManualClock()
    end = clock.now() + timedelta(days=30)
    with capture_logs() as logs:
        async with running(tmp_path, clock) as cp:
            await cp.proxy(WEB, cp.token("web-01", valid_for=timedelta(days=30)))
            await cp.proxy(DB, cp.token("db-01", valid_for=timedelta(days=20)))
            await cp.settled(2)
            first = (clock.now() + timedelta(days=20)).timestamp()
            ticking = aio.spawn(_tick(clock), name="ticking")  # insights are written in batches, by this clock
            shown = await cp.insight(WEB, lambda spec: spec.token)
            await aio.stop([ticking])
            assert shown.token == TokenInsight(expiration_time=end, warning_time=end - timedelta(days=14))
            async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
                metrics = (await client.get(f"http://127.0.0.1:{await cp.parts.diagnostics.port()}/metrics")).text
            (metric,) = [line for line in metrics.splitlines() if line.startswith("dataplane_token_expiration")]
            assert metric.startswith('dataplane_token_expiration_timestamp_seconds{mesh="default"}')
            assert float(metric.rpartition(" ")[2]) == first

            def told() -> list[list[str]]:
                return [line["dataplanes"] for line in logs if line["event"].startswith("tokens of proxies end soon")]

            async def until_told(warnings: int, pause: int) -> None:
                async with asyncio.timeout(PATIENCE):
                    while len(told()) < warnings:
                        clock.advance(pause)  # it is looked at in pieces
                        await asyncio.sleep(0.01)

            await cp.settled(2)
            clock.advance(10 * 86400 - 3600)
            await until_told(1, 600)
            assert clock.now() >= end - timedelta(days=20)
            clock.advance(5 * 86400)
            await until_told(2, 600)
            assert clock.now() >= end - timedelta(days=14)
            assert told() == [["db-01"], ["web-01"]]


async def _tick(clock: ManualClock) -> None:
    while True:
        clock.advance(1)
        await asyncio.sleep(0.02)


async def expired(cp: Running, described: Resource[Any], token: str) -> None:
    """Return once a proxy has tried to connect with a token that has expired."""
    assert "has expired" in (await (await cp.proxy(described, token)).failure()).details


def stored(cp: Running) -> Resource[Any] | None:
    return cp.parts.views.view("default").dataplanes.get(WEB.name)


def serves(cp: Running) -> bool:
    """Tells whether callers are sent to web."""
    found = stored(cp)
    return found is not None and serving_label.is_serving(found)


async def serving(cp: Running, token: str) -> FakeProxy:
    """Connects web, with a token and a certificate, and waits until callers are sent to it."""
    await cp.apply(MTLS)
    web = await cp.proxy(WEB, token)
    await web.until(lambda: web.certificate)
    await cp.settled(1)
    await cp.parts.views.until(lambda: serves(cp))
    return web


async def test_callers_keep_a_proxy_whose_only_fault_is_its_expired_token(tmp_path: Path) -> None:
    """It gets no certificate. Once it is not there any more, or its certificate has ended, callers lose it."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        token = cp.token("web-01", valid_for=timedelta(hours=1))
        web = await serving(cp, token)
        clock.advance(3600)
        assert "has expired" in (await web.failure()).details
        await cp.disconnected(WEB)
        for _ in range(6):
            await expired(cp, WEB, token)
            clock.advance(20)
        await cp.looked_around()
        assert serves(cp)
        assert not len(cp.parts.proxies)
        again = await cp.proxy(WEB, cp.token("web-01"))
        await again.until(lambda: again.certificate)
        await cp.settled(1)
        assert serves(cp)
        await again.disconnect()
        await cp.disconnected(WEB)
        await expired(cp, WEB, token)
        clock.advance(10)
        await cp.looked_around()
        clock.advance(30)
        await cp.parts.views.until(lambda: stored(cp) is not None and not serves(cp))
        await expired(cp, WEB, token)
        async with asyncio.timeout(PATIENCE):
            while stored(cp) is not None:  # looked at in pieces of this time
                clock.advance(86400)
                await asyncio.sleep(0.02)


async def test_callers_lose_a_proxy_whose_token_was_revoked_though_it_has_expired_too(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        token = cp.token("web-01", valid_for=timedelta(hours=1))
        web = await serving(cp, token)
        await revoke(cp, token)
        clock.advance(3600)
        await web.failure()
        await cp.disconnected(WEB)
        again = await cp.proxy(WEB, token)
        assert "has been revoked" in (await again.failure()).details
        clock.advance(10)
        await cp.parts.views.until(lambda: not serves(cp))


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
