"""Measures a change in a control plane that holds many other things: CPU of the whole process per change.

Beside each figure stands that of a control plane which holds nothing else, measured in the same run. What is not
concerned by a change should not be paid for. With callers that are connected: see `bench_callers`.

    python -m benchmarks.bench_growth
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import structlog

from benchmarks.parts.figures import cpu, machine
from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.store.protocol import Create
from tests.fakes.control_plane import ALLOW_ALL, Running, dataplane, resource, running

MESHES = (0, 500, 1000, 1500)
DATAPLANES = (0, 1000, 5000)
ROUNDS = 20
_BATCH = 500

Change = Callable[[int], Awaitable[object]]


async def fill(cp: Running, found: Sequence[Resource[Any]]) -> None:
    """Store many at once, past the rules; returns once they are in the views."""
    for start in range(0, len(found), _BATCH):
        some = found[start : start + _BATCH]
        owner = [kinds.MESH.key(r.mesh) if r.mesh else None for r in some]
        stored = await cp.parts.manager.store.transact([Create(r, o) for r, o in zip(some, owner, strict=True)])
        last = stored[-1]
        await cp.parts.views.until(lambda last=last: cp.parts.views.holds(last))  # type: ignore[misc]


async def cost(change: Change) -> float:
    """Milliseconds of CPU per change, once everything that follows from it is done."""
    for number in range(3):
        await change(-number)
    await asyncio.sleep(0.5)
    start = cpu()
    for number in range(ROUNDS):
        await change(number)
    await asyncio.sleep(0.3)
    return (cpu() - start) / ROUNDS * 1000


async def meshes(count: int) -> float:
    """A PUT of a Mesh beside `count` others."""
    with tempfile.TemporaryDirectory() as name:
        async with running(Path(name)) as cp:
            await fill(cp, [resource(f"{{type: Mesh, name: m{number}}}") for number in range(count)])

            async def change(number: int) -> None:
                await cp.apply(f"{{type: Mesh, name: default, labels: {{round: r{number + 9}}}}}")

            return await cost(change)


async def dataplanes(count: int) -> tuple[float, float]:
    """A PUT of a Dataplane beside `count` others, and a GET of /global-insight."""
    with tempfile.TemporaryDirectory() as name:
        async with running(Path(name)) as cp:
            await cp.apply(ALLOW_ALL)
            await fill(cp, [dataplane(f"p{n}", f"s{n % 100}", port=1000 + n % 60000) for n in range(count)])

            async def change(number: int) -> None:
                await cp.apply_resource(dataplane("mine", "mine", port=1000 + number % 50 + 3))

            put = await cost(change)
            async with httpx.AsyncClient(base_url=f"http://localhost:{await cp.api_port()}", trust_env=False) as client:

                async def look(_: int) -> None:
                    (await client.get("/global-insight")).raise_for_status()

                return put, await cost(look)


def main() -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print("CPU of one change beside many other resources; the first row is the baseline")
    for count in MESHES:
        print(f"  PUT of a Mesh beside {count:>5} others:      {asyncio.run(meshes(count)):7.1f} ms")
    for count in DATAPLANES:
        put, look = asyncio.run(dataplanes(count))
        print(f"  PUT of a Dataplane beside {count:>5} others: {put:7.1f} ms;  GET /global-insight: {look:7.1f} ms")
    print(f"  reach: a change costs what it concerns, whatever there is beside it; {machine()}\n")


if __name__ == "__main__":
    main()
