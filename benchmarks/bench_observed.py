"""What it costs a real Envoy to report its callers at 1,000 requests a second: instructions, and CPU time of those.

python -m benchmarks.bench_observed [SECONDS]
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from benchmarks.parts import counted
from benchmarks.parts.counted import Counted
from kuma.xds.envoy.listeners.reports import TOGETHER_FOR
from tests.fakes.control_plane import ALLOW_ALL, MTLS, running
from tests.integration.sidecars import Sidecars, sidecars, until

RATE, CONNECTIONS = 1000, 10
SECONDS = 10.0
COUNTED = 5000
"""Requests over which instructions are counted. What Envoy does besides, while reports wait, is small among so many."""
PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
BOUND = 0.03


class Spent(NamedTuple):
    """CPU time for each request, in seconds."""

    user: float
    system: float


def used(pid: int) -> Spent:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return Spent(int(fields[11]) / ticks, int(fields[12]) / ticks)


async def calls(port: int, goes_on: Callable[[int], bool]) -> int:
    """Calls one after the other on a connection, as often as one of several has to; returns how often."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count, start = 0, time.perf_counter()
    while goes_on(count):
        if count * CONNECTIONS / RATE > time.perf_counter() - start:
            await asyncio.sleep(0.002)
            continue
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        count += 1
    writer.close()
    return count


async def together(port: int, goes_on: Callable[[int], bool]) -> int:
    """Calls on all connections at once; returns how often."""
    return sum(await asyncio.gather(*(calls(port, goes_on) for _ in range(CONNECTIONS))))


@contextlib.asynccontextmanager
async def called(plaintext: bool, observed: bool, count: Counted | None, directory: Path) -> AsyncIterator[Called]:
    """A service that is called with mesh TLS, or in plaintext."""
    async with (
        running(directory, xds_server={"port": 0, "observed_traffic": observed}) as cp,
        sidecars(cp, directory) as mesh,
    ):
        await cp.apply(PERMISSIVE if plaintext else MTLS, ALLOW_ALL)
        yield await _called(mesh, plaintext, count)


class Called(NamedTuple):
    """The process of the called service's Envoy, and the port by which it is called."""

    envoy: int
    port: int


async def _called(mesh: Sidecars, plaintext: bool, count: Counted | None) -> Called:
    mesh.options = (f"--binary-path={count.program}",) if count is not None else ()
    backend = await mesh.start("backend")
    mesh.options = ()
    web = await mesh.start("web", calls=("backend",))
    await until("web reaches backend", lambda: web.ask("backend"))
    return Called(backend.envoy, backend.port if plaintext else web.outbounds["backend"])


async def spent(plaintext: bool, seconds: float) -> Spent:
    """CPU time of the called service's Envoy for each request, without reports."""
    with tempfile.TemporaryDirectory() as name:
        async with called(plaintext, False, None, Path(name)) as found:
            before, end = used(found.envoy), time.perf_counter() + seconds
            count = await together(found.port, lambda _: time.perf_counter() < end)
            after = used(found.envoy)
            return Spent((after.user - before.user) / count, (after.system - before.system) / count)


async def instructions(plaintext: bool, observed: bool) -> float:
    """Instructions of the called service's Envoy for each request, sending of reports included."""
    with tempfile.TemporaryDirectory() as name:
        count = Counted(Path(name))
        async with called(plaintext, observed, count, Path(name)) as found:
            await count.begin(found.envoy)

            async def is_warm() -> bool:
                with contextlib.suppress(AssertionError, asyncio.IncompleteReadError):  # handshakes may take too long
                    return await together(found.port, lambda done: done < COUNTED // CONNECTIONS // 5) > 0
                return False

            await until("connections are open", is_warm)
            await count.take(found.envoy)
            number = await together(found.port, lambda done: done < COUNTED // CONNECTIONS)
            await asyncio.sleep(TOGETHER_FOR.total_seconds() + 1)
            return await count.take(found.envoy) / number


def main(seconds: float = SECONDS) -> None:
    """Print the figures."""
    print(f"What reports cost an Envoy at {RATE} requests a second over {CONNECTIONS} connections")
    for plaintext in (False, True):
        time_spent = asyncio.run(spent(plaintext, seconds))
        user, system = time_spent
        print(f"  {'plaintext' if plaintext else 'mesh TLS'}: a request takes {user * 1e6:.0f} µs in Envoy", end=" ")
        print(f"and {system * 1e6:.0f} µs in the kernel")
        if not counted.is_possible():
            print("    not counted: there is no Valgrind here (apt install valgrind)")
            continue
        without, with_it = (asyncio.run(instructions(plaintext, observed)) for observed in (False, True))
        more = with_it / without - 1
        print(f"    instructions in Envoy: {without:,.0f} without reports, {with_it:,.0f} with them ({more:+.1%})")
        print(f"    so {more * user / (user + system):+.1%} of its CPU; bound {BOUND:.0%}")
    print()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    main(*(float(text) for text in sys.argv[1:]))
