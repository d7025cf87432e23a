"""The diagnostics of several workers at one port: side by side, and who is missing is told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from kuma.api.http.server import HttpServer
from kuma.api.routes import diagnostics
from kuma.app.worker import any_sibling_can_use_store
from kuma.app.workers.diagnostics import create_app
from kuma.base import aio


class Fake:
    """The diagnostics of one worker, which are real; what they say is chosen."""

    def __init__(self, number: int) -> None:
        self.problem = self.illness = ""
        self.has_store = True
        registry = CollectorRegistry()
        Gauge("proxies", "Proxies.", ["mesh"], registry=registry).labels("default").set(number)
        Counter("seen", "Seen.", registry=registry).inc(10 * number)
        app = diagnostics.create_app(registry, lambda: self.problem, lambda: self.illness, lambda: self.has_store)
        self.server = HttpServer(app, "127.0.0.1", 0, setting="X")


@contextlib.asynccontextmanager
async def two() -> AsyncIterator[tuple[list[Fake], Callable[[], list[int]], httpx.AsyncClient]]:
    """Two of them, which of them serve, and a client of what is shown of both."""
    workers, ready = [Fake(1), Fake(2)], [1, 2]
    tasks = [aio.spawn(worker.server.run(), name="worker") for worker in workers]
    try:
        ports = {number: await worker.server.port() for number, worker in enumerate(workers, 1)}
        app = create_app(ports, lambda: ready, CollectorRegistry())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            yield workers, lambda: ready, client
    finally:
        await aio.stop(tasks)


async def test_metrics_of_all_side_by_side() -> None:
    async with two() as (_, _, client):
        lines = (await client.get("/metrics")).text.splitlines()
    assert [line for line in lines if line.startswith("kuma_proxies{")] == [
        'kuma_proxies{mesh="default",worker="1"} 1.0',
        'kuma_proxies{mesh="default",worker="2"} 2.0',
    ]
    assert [line for line in lines if line.startswith("kuma_seen_total")] == [
        'kuma_seen_total{worker="1"} 10.0',
        'kuma_seen_total{worker="2"} 20.0',
    ]
    assert lines.count("# TYPE kuma_proxies gauge") == lines.count("# TYPE kuma_seen_total counter") == 1


async def test_one_healthy_worker_is_enough_and_all_that_serve_have_to_be_ready() -> None:
    async with two() as (workers, ready, client):

        async def says(path: str) -> tuple[int, str]:
            answer = await client.get(path)
            return answer.status_code, answer.text

        assert (await says("/healthy"), await says("/ready")) == ((200, "healthy\n"), (200, "ready\n"))
        workers[0].illness, workers[1].problem = "it alone is cut off", "the database is away"
        assert await says("/healthy") == (200, "healthy\n")
        assert await says("/ready") == (503, "worker 2: not ready: the database is away\n")
        workers[1].illness = "so is this one"
        assert (await says("/healthy"))[0] == 503
        ready().remove(2)
        assert await says("/ready") == (200, "ready\n"), "who does not serve is asked nothing"
        ready().clear()
        assert await says("/ready") == (503, "not ready: no worker serves\n")
        assert await says("/healthy") == (503, "not healthy: no worker serves\n")


async def test_who_does_not_answer_is_told() -> None:
    lonely = create_app({1: 1}, lambda: [1], CollectorRegistry())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(lonely), base_url="http://here") as client:
        answer = await client.get("/ready")
        assert (answer.status_code, answer.text) == (503, "worker 1: does not answer\n")
        assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize(("has", "expected"), [((False, True), True), ((False, False), False)])
async def test_a_worker_that_is_cut_off_asks_the_others(has: tuple[bool, bool], expected: bool) -> None:
    async with two() as (workers, _, _):
        for worker, has_store in zip(workers, has, strict=True):
            worker.has_store = has_store
        ports = [await worker.server.port() for worker in workers]
        assert await any_sibling_can_use_store([*ports, 1]) is expected
