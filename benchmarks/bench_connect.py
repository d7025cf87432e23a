"""Measures what it costs a control plane when proxies connect: for the first time, and again after it was killed.

Each proxy has a connection of its own. CPU is that of the control plane's process; beside it stands that of a bare
server which has the same conversation on as many streams in the same run (see `bare`).

    python -m benchmarks.bench_connect [PROXIES …]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.parts import bare, processes
from benchmarks.parts.bare import Limit, Talk, Talks
from benchmarks.parts.figures import machine
from benchmarks.parts.processes import Process

SIZES = (300, 1000, 5000)
KILLED = 1000
"""Proxies from which on the control plane is killed once: few come back at once."""
_SETTLE = 3.0
"""Seconds in which what follows from having converged is done: insights are written every second."""


@dataclass(frozen=True)
class Cost:
    """Seconds, bytes of memory, and the messages of one proxy: sizes of what it was sent, and of what it said."""

    cpu: float
    wall: float
    memory: int
    sent: Sequence[int]
    said: Sequence[int]


async def _cost(server: Process, clients: Process, count: int, before: Mapping[str, Any], begun: float) -> Cost:
    """What it has cost since `before` that all are there and run what they should."""
    await server.until("state", lambda state: state["connected"] == count)
    await server.until("settled", bool, pause=0.5)
    wall = time.perf_counter() - begun
    await asyncio.sleep(_SETTLE)
    after, talk = await server.ask("state"), await clients.ask("conversation")
    return Cost(after["cpu"] - before["cpu"], wall, after["memory"] - before["memory"], talk["sent"], talk["said"])


async def measure(count: int) -> tuple[Cost, Cost]:
    """What it costs that `count` proxies come, and that they come back after the control plane was killed."""
    with tempfile.TemporaryDirectory() as name:
        directory, log = Path(name), Path(name) / "log"
        async with processes.started("benchmarks.parts.serving", directory, 0, count, log=log) as server:
            start, before, begun = await server.ask("start"), await server.ask("state"), time.perf_counter()
            port, *arguments = start["port"], start["ca"], 0, count, count, start["token"]
            async with processes.started("benchmarks.parts.simulated", port, *arguments) as clients:
                first = await _cost(server, clients, count, before, begun)
                await server.kill()
                begun = time.perf_counter()
                async with processes.started("benchmarks.parts.serving", directory, port, count, log=log) as again:
                    return first, await _cost(again, clients, count, {"cpu": 0.0, "memory": 0}, begun)


async def limit(count: int, measured: Cost) -> Limit:
    """What the same conversation costs a bare server."""
    talks = Talks(first=Talk(measured.sent, measured.said)).text()
    with tempfile.TemporaryDirectory() as name:
        async with processes.started("benchmarks.parts.bare", "serve", name, talks) as server:
            start, before, begun = await server.ask("start"), await server.ask("state"), time.perf_counter()
            async with processes.started("benchmarks.parts.bare", "call", start["port"], start["ca"], count, talks):
                after = await server.until("state", lambda state: state["done"] == count)
                return bare.cost([before], [after], time.perf_counter() - begun)


def show(what: str, count: int, cost: Cost, limit: Limit) -> None:
    """Print one row."""
    print(f"  {count:>5} proxies, {what}: {cost.cpu / count * 1e3:5.1f} ms each", end="")
    print(f"; bare server {limit.cpu / count * 1e3:4.1f} ms (all after {cost.wall:.1f} s, {limit.wall:.1f} s; ", end="")
    print(f"{len(cost.sent)} messages, {sum(cost.sent):,} bytes to each)")


async def one_size(count: int) -> None:
    """Measure and print what concerns `count` proxies."""
    first, back = await measure(count)
    least, least_back = await limit(count, first), await limit(count, back)
    show("for the first time", count, first, least)
    show("back after kill -9", count, back, least_back)
    print(f"{'':>8}{first.memory / count / 1024:.0f} KiB per proxy; bare stream {least.memory / count / 1024:.0f} KiB")


def main(sizes: Sequence[int] = SIZES) -> None:
    """Print the figures."""
    print("CPU of the control plane per proxy that connects; the time of 'back' has the start of the process in it")
    for count in sizes:
        asyncio.run(one_size(count))
        print(f"{'':>8}{machine()}")
    print("  reach: first <= 6 ms, back <= 4 ms and within 8 s; <= 15 % more from 300 to 5000; <= 80 KiB per proxy\n")


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SIZES)
