"""How long the first page of the console takes in a mesh of 5,000 Dataplanes, and the pages after it.

python -m benchmarks.bench_console [DATAPLANES]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from benchmarks.parts.figures import shown
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec, MtlsInsight, Subscription
from kuma.resources.models.observed_traffic import Edge, ObservedTrafficSpec
from kuma.resources.resource import Key, Model, Resource
from kuma.store.protocol import Create
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.fakes.many import many_dataplanes

DATAPLANES, SERVICES, ROUNDS = 5000, 200, 10
BOUND = 1.0
"""Seconds in which the first page has to be there."""
PAGES = (
    "/gui/",
    "/gui/meshes/default",
    "/gui/meshes/default/proxies",
    "/gui/meshes/default/calls",
    "/gui/meshes/default/calls/service-000",
)


async def known_proxies(cp: Running, count: int) -> None:
    """Store what is known of each proxy, and who has called it."""
    now, mesh = datetime.now(UTC), kinds.MESH.key("default")
    mtls = MtlsInsight(certificate_expiration_time=now + timedelta(days=20), issued_backend="ca-1")
    insight = DataplaneInsightSpec(subscriptions=(Subscription(id="1", connect_time=now),), mtls=mtls)
    made: list[Create] = []
    for index in range(count):
        caller = f"spiffe://default/service-{(index * 7) % SERVICES:03}"
        edge = Edge(
            service=f"service-{index % SERVICES:03}", port=1000 + index, how="meshTls", outcome="allowed",
            first=now, last=now, uris=(caller,), connections=5, hours=(5,),
        )  # fmt: skip
        name = f"dp-{index:04}"
        specs: tuple[tuple[Key, Model], ...] = (
            (kinds.DATAPLANE_INSIGHT.key(name, "default"), insight),
            (kinds.OBSERVED_TRAFFIC.key(name, "default"), ObservedTrafficSpec(since=now, edges=(edge,))),
        )
        made += [Create(Resource(key, spec), mesh) for key, spec in specs]
    for start in range(0, len(made), 500):
        await cp.parts.manager.store.transact(made[start : start + 500])
    await cp.apply(ALLOW_ALL)


async def measure(count: int) -> None:
    """Ask for each page, once and then some times more."""
    with tempfile.TemporaryDirectory() as name:
        async with running(Path(name)) as cp:
            await cp.apply(MTLS)
            await many_dataplanes(cp, count, SERVICES)
            await known_proxies(cp, count)
            origin = f"http://localhost:{await cp.api_port()}"
            async with httpx.AsyncClient(base_url=origin, timeout=None) as client:
                for path in PAGES:
                    times, size = [], 0
                    for _ in range(ROUNDS):
                        start = time.perf_counter()
                        answer = await client.get(path)
                        times.append(time.perf_counter() - start)
                        assert answer.status_code == 200, answer.text
                        size = len(answer.content)
                    first = f"first {times[0] * 1e3:6.0f} ms"
                    print(f"  {path:38} {first}, then {shown(times[1:])}; {size / 1024:.0f} KiB")


def main(count: int = DATAPLANES) -> None:
    """Print the figures."""
    print(f"Pages of the console with {count:,} Dataplanes of {SERVICES} services; bound for the first: {BOUND:.0f} s")
    asyncio.run(measure(count))
    print()


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
