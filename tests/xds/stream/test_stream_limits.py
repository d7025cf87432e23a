"""Limits of the discovery server."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from structlog.testing import capture_logs

from kuma.base import aio
from kuma.base.values.rate_limit import Rate
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.stream import stream_limits
from kuma.xds.stream.stream_limits import StreamLimiter, StreamLimits, TooMany
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import METHOD, FakeProxy, StreamEnded, channel
from tests.integration.sidecars import until

WEB, DB = dataplane("web-01", "web"), dataplane("db-01", "db")


@pytest.mark.parametrize(
    ("peer", "host"),
    [("ipv4:10.0.0.1:5000", "10.0.0.1"), ("ipv6:%5B::1%5D:5000", "::1"), ("ipv6:[fe80::1]:5", "fe80::1")],
)
def test_the_address_of_a_peer(peer: str, host: str) -> None:
    assert stream_limits.host_of(peer) == host


STANDARD = StreamLimits(streams=Rate(10, 20), requests=Rate(10, 20), pending=2)


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    """Whoever has a /64 has 2^64 addresses to guess tokens from, and to say nothing from."""
    limiter, addresses = StreamLimiter(STANDARD, ManualClock()), [f"ipv6:%5B2001:db8::{n:x}%5D:5" for n in range(999)]
    with limiter.pending(addresses[0]), limiter.pending(addresses[1]):
        with pytest.raises(TooMany), limiter.pending(addresses[2]):
            pass
        with limiter.pending("ipv6:%5B2001:db8:0:1::1%5D:5"), limiter.pending("ipv4:10.0.0.1:5"):
            pass
    with pytest.raises(TooMany):
        for address in addresses:
            limiter.failed(address)
    limiter.failed("ipv6:%5B2001:db8:0:1::1%5D:5")


async def test_a_proxy_that_reconnects_all_the_time_is_held_off_and_others_are_not(tmp_path: Path) -> None:
    async with running(tmp_path, xds_server={"port": 0, "stream_burst": 3, "streams_per_second": 0.001}) as cp:
        await cp.apply(MTLS)
        for _ in range(3):
            web = await cp.proxy(WEB)
            await web.until(lambda: web.certificate)  # noqa: B023 - awaited at once
            await web.disconnect()
        error = await (await cp.proxy(WEB)).failure()
        assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "streams a second for default.web-01" in error.details
        db = await cp.proxy(DB)
        await db.until(lambda: db.certificate)


async def test_a_flood_of_requests_ends_its_stream_and_no_other(tmp_path: Path) -> None:
    async with running(tmp_path, xds_server={"port": 0, "request_burst": 50, "requests_per_second": 1}) as cp:
        await cp.apply(MTLS)
        db = await cp.proxy(DB)
        await db.until(lambda: db.certificate)
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)
        with capture_logs() as logs:  # a client that writes on and on may overlook the status (grpc#36066)
            while WEB.key in cp.parts.proxies:
                await web.ask("x")
                await asyncio.sleep(0.005)
        assert any("requests a second on one stream" in line.get("reason", "") for line in logs)
        await web.failure()
        assert db.connected


async def test_guessing_tokens_is_slowed_down(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock()) as cp:  # however long this takes here
        found = set()
        for _ in range(5):
            proxies = [await cp.proxy(WEB, "wrong") for _ in range(60)]
            found |= {(await proxy.failure()).code for proxy in proxies}
        assert found == {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(cp.parts.proxies) == 0


async def test_a_stream_that_says_nothing_holds_nothing_up(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        channel = await cp.channel()
        open_stream: Any = channel.stream_stream
        silent = [open_stream(METHOD)() for _ in range(50)]
        last = FakeProxy("default.db-01", "wrong", DB)
        last.connect(channel)  # one connection, so the silent ones have arrived before
        await last.failure()
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)
        for call in silent:
            call.cancel()


async def test_a_proxy_that_does_not_read_is_reset_and_holds_nobody_up(tmp_path: Path) -> None:
    async with running(tmp_path, xds_server={"port": 0, "send_timeout": "1s"}) as cp:
        await cp.apply(MTLS)
        services = [dataplane(f"d-{i}", f"service-{i}") for i in range(300)]
        for described in services:
            await cp.parts.manager.put(described)
        caller = dataplane("web-01", "web", calls=tuple(f"service-{i}" for i in range(300)))
        narrow = [("grpc.http2.lookahead_bytes", 0), ("grpc.http2.bdp_probe", 0)]
        async with channel(await cp.parts.xds.port(), cp.ca_pem, narrow) as connection:
            open_stream: Any = connection.stream_stream
            call = open_stream(METHOD)(metadata=(("authorization", cp.token()),))
            node = FakeProxy("default.web-01", "", caller).node
            first = discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=TypeUrl.CLUSTER)
            await call.write(first.SerializeToString())
            async with asyncio.timeout(PATIENCE):
                while caller.key not in cp.parts.proxies:
                    await asyncio.sleep(0.01)
            db = await cp.proxy(DB)
            await db.until(lambda: db.certificate)
            await cp.disconnected(caller)
        web = await cp.proxy(caller)
        await web.until(lambda: web.certificate)


async def test_streams_that_say_nothing_are_limited_for_each_address(tmp_path: Path) -> None:
    async with running(tmp_path, xds_server={"port": 0, "pending_streams": 3}) as cp:
        channel = await cp.channel()
        open_stream: Any = channel.stream_stream
        calls = [open_stream(METHOD)() for _ in range(4)]
        codes = [aio.spawn(call.code(), name="code") for call in calls]
        done, _ = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = [call for call, code in zip(calls, codes, strict=True) if code in done]
        assert await refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "3 streams from this address have sent no request" in await refused.details()
        for call in calls:
            call.cancel()
        await asyncio.wait(codes)

        async def let_in() -> bool:
            web = await cp.proxy(WEB)
            with contextlib.suppress(StreamEnded):
                await web.until(lambda: web.names(TypeUrl.CLUSTER))
            return web.connected

        await until("those that have gone count no more", let_in)


async def test_no_more_streams_than_there_may_be(tmp_path: Path) -> None:
    async with running(tmp_path, xds_server={"port": 0, "concurrent_streams": 1}) as cp:
        web = await cp.proxy(WEB)
        await web.until(lambda: web.names(TypeUrl.CLUSTER))
        assert (await (await cp.proxy(DB)).failure()).code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert web.connected
