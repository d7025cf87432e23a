"""Measures one endpoint that changes, beside many Dataplanes, by how many proxies call it: CPU of the whole process.

Callers are connected, and the event ends when the last of them has acknowledged; others are connected, too, which do
not call it. Beside it stands what a bare server takes for one message of the same size to as many streams, and each
answer, in the same run.

    python -m benchmarks.bench_callers [DATAPLANES]
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from benchmarks.bench_growth import fill
from benchmarks.parts import processes
from benchmarks.parts.bare import Talk, Talks
from benchmarks.parts.figures import cpu, machine
from benchmarks.parts.serving import sections
from kuma.base import garbage
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.proxies.proxy import Proxy
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running

DATAPLANES = 5000
CALLERS = (0, 20, 100, 200)
OTHERS = 100
"""Proxies that are connected, and do not call it."""
ROUNDS = 20
CALLED = "mine"
_FIRST = Talk((2000,), (500, 60))


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU of one event, and the sizes of what one caller is sent by it, and of what it says."""

    cpu: float
    talk: Talk


async def event(count: int, callers: int, others: int) -> Cost:
    """What it costs that the endpoint changes, beside `count` Dataplanes, some of which are connected."""
    with tempfile.TemporaryDirectory() as name:
        directory, of = Path(name), callers + others
        async with running(directory, **sections(0, max(1, of))) as cp, contextlib.AsyncExitStack() as stack:
            await cp.apply(MTLS, ALLOW_ALL)
            await fill(cp, [dataplane(f"beside{n}", f"b{n % 100}", port=1000 + n % 60000) for n in range(count - of)])
            await cp.apply_resource(dataplane(CALLED, CALLED))
            clients = []
            for first, some, also in ((0, callers, CALLED), (callers, others, "")):
                arguments = await cp.parts.xds.port(), directory / "ca.crt", first, some, of, cp.token(), also
                if some:
                    process = processes.started("benchmarks.parts.simulated", *arguments)
                    clients.append(await stack.enter_async_context(process))
            await _settled(cp, of)
            found = [proxy for proxy in cp.parts.proxies if int(proxy.key.name[1:]) < callers]
            await _rounds(cp, found, 1, 3)
            if clients:
                await clients[0].ask("conversation")
            before = cpu()
            await _rounds(cp, found, 4, ROUNDS)
            used = (cpu() - before) / ROUNDS
            talk = await clients[0].ask("conversation") if callers else {"sent": [], "said": []}
            return Cost(used, Talk(talk["sent"][:1], talk["said"][:1]))


async def _settled(cp: Running, count: int) -> None:
    async def ask() -> int:
        return sum(proxy.converged for proxy in cp.parts.proxies)

    await processes.until("proxies that run what they should", ask, lambda found: found == count, 0.5)
    await asyncio.sleep(3)  # insights are written every second


async def _rounds(cp: Running, callers: list[Proxy], first: int, rounds: int) -> None:
    """Change the endpoint again and again, each time until all callers have acknowledged what they got."""
    for number in range(first, first + rounds):
        counters = [proxy.record.counters[TypeUrl.ENDPOINTS] for proxy in callers]
        wanted = [counter.acked + 1 for counter in counters]
        await cp.apply_resource(dataplane(CALLED, CALLED, port=100 + number))

        async def late(counters=counters, wanted=wanted) -> int:  # type: ignore[no-untyped-def]
            return sum(counter.acked < least for counter, least in zip(counters, wanted, strict=True))

        await processes.until("callers that have not acknowledged", late, lambda found: not found, 0.01)
    await asyncio.sleep(1)  # what follows: counters are written


async def limit(count: int, talk: Talk) -> float:
    """Seconds of CPU of a bare server, for one message to each of as many streams and the answer of each."""
    talks = Talks(first=_FIRST, more=talk).text()
    with tempfile.TemporaryDirectory() as name:
        async with processes.started("benchmarks.parts.bare", "serve", name, talks) as server:
            start = await server.ask("start")
            async with processes.started("benchmarks.parts.bare", "call", start["port"], start["ca"], count, talks):
                before = await server.until("state", lambda state: state["done"] == count)
                await server.ask("more")
                after = await server.until("state", lambda state: state["done"] == count, pause=0.02)
                return float(after["cpu"] - before["cpu"])


async def measure(count: int, callers: int, others: int) -> float:
    """Measure and print one row, and return milliseconds."""
    cost = await event(count, callers, others)
    print(
        f"  {callers:>4} callers, {others:>3} others connected, {count:>5} Dataplanes: {cost.cpu * 1e3:7.1f} ms", end=""
    )
    if callers:
        print(
            f"; bare server {await limit(callers, cost.talk) * 1e3:6.1f} ms ({sum(cost.talk.sent)} bytes to each)",
            end="",
        )
    print(flush=True)
    return cost.cpu * 1e3


async def all_rows(count: int) -> None:
    """Print a row for each number of callers, then the last one with few Dataplanes, and the difference of a caller."""
    with garbage.kept_short():  # as in `kuma-cp`
        found = [await measure(count, callers, OTHERS) for callers in CALLERS]
        few = await measure(CALLERS[-1] + OTHERS, CALLERS[-1], OTHERS)
    each = (found[-1] - found[0]) / (CALLERS[-1] - CALLERS[0])
    print(f"  a caller more: {each:.2f} ms; {count} Dataplanes instead of few: {found[-1] - few:+.1f} ms")


def main(count: int = DATAPLANES) -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print("CPU of the control plane for one endpoint that changes, until the last of its callers has acknowledged")
    asyncio.run(all_rows(count))
    print(f"  reach: proportional to the callers, not to all Dataplanes; {machine()}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else DATAPLANES)
