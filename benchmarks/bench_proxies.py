"""A control plane with many connected proxies, which are real delta ADS clients in another process.

Prints how long a changed TrafficPermission takes until all have acknowledged it, what a connected proxy costs in
memory, what 1000 of them cost while nothing changes, and how much is sent when one endpoint changes.

    python -m benchmarks.bench_proxies [N …]
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from kuma.xds.entry import TypeUrl
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, resource, running
from tests.fakes.proxy import FakeProxy, channel

SIZES = (1, 100, 1000)
ROUNDS = 15
SERVICES = 50
IDLE_SECONDS = 10.0


def rss() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def described(number: int) -> Any:
    """The Dataplane of one simulated proxy: one of 50 services, which calls two others."""
    service = number % SERVICES
    calls = (f"s{(service + 1) % SERVICES}", f"s{(service + 2) % SERVICES}")
    return dataplane(f"p{number}", f"s{service}", port=10 + number % 60000, calls=calls)


async def clients(port: int, ca_file: str, count: int, token: str) -> None:
    """The other process: connects proxies, until it is killed."""
    ca_pem = Path(ca_file).read_bytes()
    async with contextlib.AsyncExitStack() as stack:
        proxies = []
        # A few connections shared by many streams, to spare the clients' process.
        channels = [await stack.enter_async_context(channel(port, ca_pem)) for _ in range(min(count, 20))]
        for number in range(count):
            proxy = FakeProxy(f"default.p{number}", token, described(number))
            proxy.connect(channels[number % len(channels)])
            proxies.append(proxy)
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def connected(cp: Running, directory: Path, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """`count` proxies in another process, which is yielded."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bench_proxies", "clients", str(await cp.parts.xds.port()),
        str(directory / "ca.crt"), str(count), cp.token(),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def settle(cp: Running, count: int, process: asyncio.subprocess.Process) -> None:
    """Return once all proxies are connected and run what they should."""
    while len(cp.parts.proxies) < count or not all(p.converged for p in cp.parts.proxies):
        assert process.returncode is None, "the clients have ended"
        await asyncio.sleep(0.1)


async def propagation(cp: Running, count: int) -> list[tuple[float, float]]:
    """Per round, the seconds until the last proxy has acknowledged a changed permission.

    They are counted from the request to store it, and from the answer to that request.
    """
    found = []
    for number in range(ROUNDS):
        permission = resource(ALLOW_ALL.replace("'*'", f"s{number % SERVICES}", 1))
        counters = [proxy.record.counters[TypeUrl.ROUTES] for proxy in cp.parts.proxies]
        expected = sum(counter.acked for counter in counters) + count
        asked = time.perf_counter()
        await cp.parts.manager.put(permission)
        answered = time.perf_counter()
        while sum(counter.acked for counter in counters) < expected:
            await asyncio.sleep(0.0005)
        now = time.perf_counter()
        found.append((now - asked, now - answered))
        await asyncio.sleep(1.5)  # the insights of this round are written before the next
    return found


def _shown(times: Sequence[float]) -> str:
    """Median and worst of a few rounds; with so few, the worst stands for p99."""
    return f"p50 {statistics.median(times) * 1e3:6.1f} ms, worst {max(times) * 1e3:6.1f} ms"


async def measure(count: int) -> None:
    """All figures for `count` proxies."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with running(directory) as cp:
            await cp.apply(MTLS, ALLOW_ALL)
            before = rss()
            async with connected(cp, directory, count) as process:
                start = time.perf_counter()
                await settle(cp, count, process)
                ready = time.perf_counter() - start
                memory = (rss() - before) / count
                asked, answered = zip(*await propagation(cp, count), strict=True)
                print(f"  {count:>5} proxies: {_shown(answered)} from the answer; {_shown(asked)} from the request")
                print(
                    f"{'':>8}{memory / 1024:.0f} KiB per proxy; all were connected and configured after {ready:.1f} s"
                )
                if count == max(SIZES):
                    await idle(count)
                    await one_endpoint(cp)


async def idle(count: int) -> None:
    """What `count` proxies cost while nothing changes."""
    await asyncio.sleep(5)
    start = os.times()
    await asyncio.sleep(IDLE_SECONDS)
    end = os.times()
    used = (end.user + end.system - start.user - start.system) / IDLE_SECONDS
    print(f"  idle with {count} proxies: {used:.2%} of a core (reach < 1 %)")


async def one_endpoint(cp: Running) -> None:
    """What is generated and sent when one endpoint of one service changes."""
    proxies = list(cp.parts.proxies)
    callers = [p for p in proxies if int(p.key.name[1:]) % SERVICES in ((7 - 1) % SERVICES, (7 - 2) % SERVICES)]
    before = {p.key: sum(c.sent for c in p.record.counters.values()) for p in proxies}
    await cp.apply_resource(dataplane("p-new", "s7", port=9))
    await asyncio.sleep(2)
    sent = {p.key: sum(c.sent for c in p.record.counters.values()) - before[p.key] for p in proxies}
    reached = sum(1 for number in sent.values() if number)
    print(f"  one new endpoint of one service: {sum(sent.values())} responses to {reached} proxies; ", end="")
    print(f"{len(callers)} of {len(proxies)} call that service")


async def round_trip(count: int = 2000) -> float:
    """Seconds for one round trip over loopback TCP in asyncio: what no message to a proxy can be faster than."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    start = time.perf_counter()
    for _ in range(count):
        writer.write(b"x" * 300)
        await reader.read(1000)
    elapsed = time.perf_counter() - start
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.01)
    server.close()
    return elapsed / count


def main(sizes: tuple[int, ...] = SIZES) -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    limit = asyncio.run(round_trip())
    print("From the API's answer to a changed TrafficPermission until acknowledged by all proxies")
    print(f"  the machine's own limit: {limit * 1e6:.0f} µs for one round trip over loopback TCP in asyncio")
    for count in sizes:
        asyncio.run(measure(count))
    print("  reach: p99 <= 50 ms for one, <= 1 s for 1000; <= 150 KB per proxy\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["clients"]:
        asyncio.run(clients(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]))
    else:
        main(tuple(int(text) for text in sys.argv[1:]) or SIZES)
