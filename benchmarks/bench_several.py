"""Three control planes over one PostgreSQL, one of which is killed: until all its proxies are served by the others.

python -m benchmarks.bench_several [PROXIES]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import processes
from benchmarks.processes import Process
from demo import postgres
from kuma.app.serving import server_certificate
from tests.fakes.stores import new_store, store_settings

PROXIES = 3000
PLANES = 3
_EACH = 1000
"""Proxies of one process of clients."""


async def settled(planes: Sequence[Process], count: int) -> None:
    """Return once all proxies are connected to one of these, and run what they should."""
    while sum([(await plane.ask("state"))["connected"] for plane in planes]) < count:
        await asyncio.sleep(0.2)
    for plane in planes:
        await plane.until("settled", bool, pause=0.5)


async def measure(count: int) -> None:
    """Measure and print."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = await new_store(stack.enter_context(postgres.server()), directory)
        store, planes, starts = json.dumps(store_settings(address), default=str), [], []
        server_certificate.ensure(directory, ("localhost",), datetime.now(UTC))
        for number in range(PLANES):
            own = directory / str(number)
            own.mkdir()
            for name in ("ca.crt", "ca.key"):
                (own / name).write_bytes((directory / name).read_bytes())
                (own / name).chmod(0o600)
            plane = processes.started("benchmarks.serving", own, 0, count, store, log=own / "log")
            planes.append(await stack.enter_async_context(plane))
            starts.append(await planes[-1].ask("start"))
        ports = ",".join(str(start["port"]) for start in starts)
        for first in range(0, count, _EACH):
            arguments = ports, starts[0]["ca"], first, min(_EACH, count - first), count, starts[0]["token"]
            await stack.enter_async_context(processes.started("benchmarks.simulated", *arguments))
        begun = time.perf_counter()
        await settled(planes, count)
        print(
            f"  {count} proxies: connected and configured after {time.perf_counter() - begun:.1f} s; ",
            end="",
            flush=True,
        )
        others, before = planes[1:], [await plane.ask("state") for plane in planes[1:]]
        begun = time.perf_counter()
        await planes[0].kill()
        await settled(others, count)
        wall, after = time.perf_counter() - begun, [await plane.ask("state") for plane in others]
        used = sum(now["cpu"] - then["cpu"] for now, then in zip(after, before, strict=True))
        moved = sum(now["connected"] - then["connected"] for now, then in zip(after, before, strict=True))
        print(f"one killed: its {moved} are back elsewhere, and run what they should, after {wall:.1f} s", end="")
        print(f" and {used / max(1, moved) * 1e3:.1f} ms of CPU each")


def main(count: int = PROXIES) -> None:
    """Print the figures."""
    print("Three control planes over one PostgreSQL, one of which is killed")
    asyncio.run(measure(count))
    print("  reach: 20 s\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else PROXIES)
