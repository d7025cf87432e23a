"""Three control planes over one PostgreSQL, one of which is killed: until all its proxies are served by the others.

Beside it stands what three bare servers take, one of which is killed, for the same conversations in the same run.

    python -m benchmarks.bench_several [PROXIES]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.parts import bare, processes
from benchmarks.parts.bare import Limit, Talk, Talks
from benchmarks.parts.figures import machine
from benchmarks.parts.processes import Process
from demo import postgres
from kuma.app.serving import server_certificate
from tests.fakes.stores import new_store, store_settings

PROXIES = 3000
PLANES = 3
_EACH = 1000
"""Proxies of one process of clients."""


@dataclass(frozen=True)
class Cost:
    """What it has cost that some came, how many of them there were, and what one of them was told and said."""

    used: Limit
    come: int
    talk: Talk


class Clients:
    """All clients, in processes of at most a thousand."""

    def __init__(self, stack: contextlib.AsyncExitStack, count: int) -> None:
        self._stack = stack
        self._count = count
        self._processes: list[Process] = []

    async def come(self, command: Callable[[int, int], Sequence[object]]) -> None:
        """Start them, by what `command` tells of the first and the number of those of one process."""
        for first in range(0, self._count, _EACH):
            process = processes.started(*map(str, command(first, min(_EACH, self._count - first))))
            self._processes.append(await self._stack.enter_async_context(process))

    async def talk(self) -> Talk:
        """What those who have come since the last question were told, and have said."""
        found = [await process.ask("conversation of who came") for process in self._processes]
        return Talk(**max(found, key=lambda talk: sum(talk["sent"])))


async def _states(servers: Sequence[Process]) -> list[Mapping[str, Any]]:
    return [await server.ask("state") for server in servers]


async def _all(servers: Sequence[Process], count: int, what: str) -> None:
    async def ask() -> int:
        return sum(state[what] for state in await _states(servers))

    await processes.until(f"{count} of {len(servers)} servers {what}", ask, lambda found: found >= count, 0.2)


async def settled(planes: Sequence[Process], count: int) -> None:
    """Return once all proxies are connected to one of these, and run what they should."""
    await _all(planes, count, "connected")
    for plane in planes:
        await plane.until("settled", bool, pause=0.5)


async def have_talked(servers: Sequence[Process], count: int) -> None:
    """Return once all clients have said what they had to."""
    await _all(servers, count, "done")


async def _cost(servers: Sequence[Process], before: Sequence[Mapping[str, Any]], begun: float, talk: Talk) -> Cost:
    wall, after = time.perf_counter() - begun, await _states(servers)
    come = sum(now["connected"] - then["connected"] for now, then in zip(after, before, strict=True))
    return Cost(bare.cost(before, after, wall), come, talk)


async def planes_cost(count: int) -> tuple[Cost, Cost]:
    """What it costs control planes that all proxies come, and that those of one that is killed come to the others."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = await new_store(stack.enter_context(postgres.server()), directory)
        store, planes = json.dumps(store_settings(address), default=str), []
        server_certificate.ensure(directory, ("localhost",), datetime.now(UTC))
        for number in range(PLANES):
            own = directory / str(number)
            own.mkdir()
            for name in ("ca.crt", "ca.key"):
                (own / name).write_bytes((directory / name).read_bytes())
                (own / name).chmod(0o600)
            plane = processes.started("benchmarks.parts.serving", own, 0, count, store, log=own / "log")
            planes.append(await stack.enter_async_context(plane))
        starts = [await plane.ask("start") for plane in planes]
        ports, ca, token = ",".join(str(start["port"]) for start in starts), starts[0]["ca"], starts[0]["token"]
        clients, before, begun = Clients(stack, count), await _states(planes), time.perf_counter()
        await clients.come(lambda first, some: ("benchmarks.parts.simulated", ports, ca, first, some, count, token))
        await settled(planes, count)
        come = await _cost(planes, before, begun, await clients.talk())
        before, begun = await _states(planes[1:]), time.perf_counter()
        await planes[0].kill()
        await settled(planes[1:], count)
        return come, await _cost(planes[1:], before, begun, await clients.talk())


async def limits_cost(count: int, talks: Talks) -> tuple[Cost, Cost]:
    """What the same costs as many bare servers."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server_certificate.ensure(directory, ("localhost",), datetime.now(UTC))  # one for all, which begin at once
        started = [processes.started("benchmarks.parts.bare", "serve", directory, talks.text()) for _ in range(PLANES)]
        servers = [await stack.enter_async_context(server) for server in started]
        starts = [await server.ask("start") for server in servers]
        ports, ca = ",".join(str(start["port"]) for start in starts), starts[0]["ca"]
        clients, before, begun = Clients(stack, count), await _states(servers), time.perf_counter()
        await clients.come(lambda _, some: ("benchmarks.parts.bare", "call", ports, ca, some, talks.text()))
        await have_talked(servers, count)
        come = await _cost(servers, before, begun, talks.first)
        before, begun = await _states(servers[1:]), time.perf_counter()
        await servers[0].kill()
        await have_talked(servers[1:], count)
        return come, await _cost(servers[1:], before, begun, talks.back)


def _show(what: str, cost: Cost, limit: Cost) -> None:
    print(
        f"  {cost.come} {what} after {cost.used.wall:.1f} s, {cost.used.cpu / cost.come * 1e3:.1f} ms of CPU each; ",
        end="",
    )
    print(f"bare servers {limit.used.wall:.1f} s, {limit.used.cpu / limit.come * 1e3:.1f} ms ", end="")
    print(f"({len(cost.talk.sent)} messages, {sum(cost.talk.sent):,} bytes to each)", flush=True)


async def measure(count: int) -> None:
    """Measure and print."""
    come, back = await planes_cost(count)
    least_come, least_back = await limits_cost(count, Talks(come.talk, back.talk))
    _show("proxies connected and configured", come, least_come)
    _show("of one that is killed are back elsewhere, and run what they should,", back, least_back)


def main(count: int = PROXIES) -> None:
    """Print the figures."""
    print("Three control planes over one PostgreSQL, one of which is killed")
    asyncio.run(measure(count))
    print(f"  reach: 20 s; {machine()}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else PROXIES)
