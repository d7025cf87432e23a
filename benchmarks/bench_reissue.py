"""Measures a whole mesh that is issued by another CA, in steps, until the change is complete.

Beside it stands what a bare server takes for the same messages on as many open streams, in the same run.

    python -m benchmarks.bench_reissue [PROXIES]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.parts import bare, processes
from benchmarks.parts.bare import Limit, Talk, Talks
from benchmarks.parts.figures import machine

PROXIES = 1000
_FIRST = Talk((2000,), (500, 60))
"""What streams of a bare server begin with, before it is measured."""


@dataclass(frozen=True)
class Cost:
    """What was used, seconds of CPU for issuing within that, and what each proxy was sent and said."""

    used: Limit
    issuing: float
    talk: Talk


async def change(count: int) -> Cost:
    """What the change costs from the PUT of the Mesh to `complete`."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with processes.started("benchmarks.parts.serving", directory, 0, count, log=directory / "log") as server:
            start = await server.ask("start")
            arguments = start["port"], start["ca"], 0, count, count, start["token"]
            async with processes.started("benchmarks.parts.simulated", *arguments) as clients:
                await server.until("state", lambda state: state["connected"] == count)
                await server.until("settled", bool, pause=0.5)
                await clients.ask("conversation")  # which counts from here
                before, begun = await server.ask("state"), time.perf_counter()
                await server.ask("another")
                await server.until("issued", bool, pause=0.25)
                wall, after = time.perf_counter() - begun, await server.ask("state")
                talk = Talk(**await clients.ask("conversation"))
                return Cost(bare.cost([before], [after], wall), await server.ask("signing") * count, talk)


async def limit(count: int, talk: Talk) -> Limit:
    """What the same messages cost a bare server."""
    talks = Talks(first=_FIRST, more=talk).text()
    with tempfile.TemporaryDirectory() as name:
        async with processes.started("benchmarks.parts.bare", "serve", name, talks) as server:
            start = await server.ask("start")
            async with processes.started("benchmarks.parts.bare", "call", start["port"], start["ca"], count, talks):
                before, begun = await server.until("state", lambda state: state["done"] == count), time.perf_counter()
                await server.ask("more")
                after = await server.until("state", lambda state: state["done"] == count, pause=0.02)
                return bare.cost([before], [after], time.perf_counter() - begun)


async def measure(count: int) -> None:
    """Measure and print."""
    cost = await change(count)
    least = await limit(count, cost.talk)
    print(f"  {count} proxies, from the change of the Mesh to `complete`: {cost.used.wall:.1f} s; ", end="")
    print(f"{cost.used.cpu / count * 1e3:.1f} ms of CPU each, of which issuing {cost.issuing / cost.used.cpu:.0%}")
    print(f"  bare server: {least.wall:.1f} s, {least.cpu / count * 1e3:.1f} ms each, for the same ", end="")
    print(f"{len(cost.talk.sent)} messages of {sum(cost.talk.sent):,} bytes together to each, at once and not in steps")


def main(count: int = PROXIES) -> None:
    """Print the figures."""
    print("A whole mesh issued by another CA: both trusted, then issued by the new one, then the old connections ended")
    asyncio.run(measure(count))
    print(f"  {machine()}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else PROXIES)
