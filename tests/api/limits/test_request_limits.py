"""Limits: who exceeds them is told so, and nobody else notices."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from hypothesis import given
from hypothesis import strategies as st

from kuma.base.tls.trust import NOBODY
from kuma.base.values.rate_limit import Buckets, Rate
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import running
from tests.fakes.patience import PATIENCE

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_bucket_fills_again() -> None:
    buckets = Buckets(Rate(2, 3))
    assert [buckets.take("a", START) > 0 for _ in range(4)] == [False, False, False, True]
    assert buckets.take("b", START) == 0
    assert buckets.take("a", START) == 0.5
    assert buckets.take("a", START + timedelta(seconds=0.5)) == 0
    assert buckets.take("a", START + timedelta(seconds=0.5)) > 0


@given(st.lists(st.floats(0, 5), max_size=60))
def test_no_client_gets_more_than_its_rate(pauses: list[float]) -> None:
    buckets, now, passed = Buckets(Rate(2, 3)), START, 0
    for pause in pauses:
        now += timedelta(seconds=pause)
        passed += not buckets.take("a", now)
    assert passed <= 3 + 2 * (now - START).total_seconds() + 1e-6


async def test_too_many_requests_of_one_address_are_429_and_others_are_served(tmp_path: Path) -> None:
    clock = ManualClock(datetime.now(UTC))
    limits = {"requests_per_second": 1, "burst": 5}
    ports = {"http": {"port": 0}, "https": {"port": 0}}
    async with running(tmp_path, clock, api_server={**ports, "limits": limits}) as cp:
        base = f"http://localhost:{await cp.api_port()}"
        async with httpx.AsyncClient(verify=NOBODY, base_url=base, timeout=PATIENCE) as abusive:
            answers = [await abusive.get("/meshes") for _ in range(6)]
            assert [answer.status_code for answer in answers] == [200] * 5 + [429]
            assert answers[-1].headers["retry-after"] == "1"
            assert answers[-1].json()["title"] == "Too Many Requests"
            other = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
            async with httpx.AsyncClient(
                base_url=base.replace("localhost", "127.0.0.1"), transport=other, timeout=PATIENCE
            ) as client:
                assert (await client.get("/meshes")).status_code == 200
            clock.advance(1)
            assert (await abusive.get("/meshes")).status_code == 200


async def test_a_head_that_does_not_end_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        reader, writer = await asyncio.open_connection("localhost", await cp.api_port())
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 100_000)
        await writer.drain()
        assert b"431" in await reader.readline()
        writer.close()


async def test_every_error_has_the_one_shape(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        base = f"http://localhost:{await cp.api_port()}"
        async with httpx.AsyncClient(verify=NOBODY, base_url=base, timeout=PATIENCE) as client:
            found = {
                404: await client.get("/meshes/nowhere"),
                405: await client.patch("/meshes/default"),
                415: await client.put("/meshes/default", content=b"x", headers={"content-type": "text/plain"}),
                413: await client.put("/meshes/default", content=b" " * (2 << 20)),
                400: await client.get("/meshes?size=x"),
                401: await client.get("/meshes", headers={"authorization": "Bearer x"}),
            }
        for status, answer in found.items():
            body = json.loads(answer.text)
            assert (answer.status_code, body["status"], body["type"]) == (status, status, "/std-errors")
            assert body["title"]
            assert body["detail"] == body["details"]
