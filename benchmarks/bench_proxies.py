"""A control plane with many connected proxies, which are real delta ADS clients in another process.

Prints how long a changed TrafficPermission takes until all have acknowledged it, what a connected proxy costs in
memory, what 1000 of them cost while nothing changes, and what is made and sent when one endpoint changes; beside each
what a bare server takes for the same, measured in the same run (see `limits`).

    python -m benchmarks.bench_proxies [N …]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import structlog

from benchmarks.parts import limits, processes
from benchmarks.parts.figures import cpu, machine, rss, shown
from benchmarks.parts.limits import Limit
from benchmarks.parts.processes import Unmeasured
from kuma.base import aio, garbage
from kuma.resources import codec
from kuma.xds.envoy.resource import Entry, TypeUrl
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, resource, running
from tests.fakes.proxy import FakeProxy, channel

SIZES = (1, 100, 1000)
ROUNDS = {1: 200, 100: 100}
FEW_ROUNDS = 15
"""Of a size that is not listed: a p99 of those would take too long."""
MANY = 100
"""Proxies from which on the memory of one can be told from noise."""
SERVICES = 50
IDLE_SECONDS = 8.0


def described(number: int) -> Any:
    """The Dataplane of one simulated proxy: one of 50 services, which calls two others."""
    service = number % SERVICES
    calls = (f"s{(service + 1) % SERVICES}", f"s{(service + 2) % SERVICES}")
    return dataplane(f"p{number}", f"s{service}", port=10 + number % 60000, calls=calls)


async def clients(port: int, ca_file: str, count: int, token: str) -> None:
    """The other process: connects proxies; prints how many bytes they have received whenever it reads a line."""
    ca_pem = Path(ca_file).read_bytes()
    async with contextlib.AsyncExitStack() as stack:
        proxies = []
        # A few connections shared by many streams, to spare the clients' process.
        channels = [await stack.enter_async_context(channel(port, ca_pem)) for _ in range(min(count, limits.CHANNELS))]
        for number in range(count):
            proxy = FakeProxy(f"default.p{number}", token, described(number))
            proxy.connect(channels[number % len(channels)])
            proxies.append(proxy)
        while await asyncio.to_thread(sys.stdin.readline):
            print(sum(size for proxy in proxies for _, size in proxy.received), flush=True)


class Another:
    """Another process of this benchmark, which answers each line with a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, line: str = "") -> str:
        """Sends a line and returns the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n".encode())
        return (await self.process.stdout.readline()).decode()


@contextlib.asynccontextmanager
async def another(*arguments: str) -> AsyncIterator[Another]:
    """A process, until the end of the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bench_proxies", *arguments, stdin=pipe, stdout=pipe
    )
    try:
        yield Another(process)
    finally:
        process.kill()
        await process.wait()


async def settle(cp: Running, count: int, process: asyncio.subprocess.Process) -> None:
    """Return once all proxies are connected and run what they should."""

    async def ask() -> int:
        if process.returncode is not None:
            raise Unmeasured("the clients have ended")
        return sum(proxy.converged for proxy in cp.parts.proxies)

    await processes.until(f"proxies of {count} that run what they should", ask, lambda found: found >= count)


def rounds(count: int) -> int:
    """Returns how often the change of a permission is measured."""
    return ROUNDS.get(count, FEW_ROUNDS)


def writer(base: str) -> None:
    """A third process: PUTs each line that it reads, and prints when it asked and when it had the answer.

    In a process of its own, because in the control plane's it would have the answer only when there is a pause. The
    clock is the machine's, the same for all processes.
    """
    with httpx.Client(base_url=base, trust_env=False) as client:
        for line in sys.stdin:
            asked = time.perf_counter()
            answer = client.put("/meshes/default/traffic-permissions/allow-all", content=line, headers=_JSON)
            answered = time.perf_counter()
            answer.raise_for_status()
            print(asked, answered, flush=True)


_LOOK = 2e-6
"""Seconds for each proxy between two looks at what all have acknowledged, which takes a thirtieth of that."""
_JSON = {"content-type": "application/json"}


async def propagation(cp: Running, count: int) -> list[tuple[float, float, float]]:
    """Per round, the seconds until the last proxy has acknowledged a changed permission, and those of CPU for each.

    They are counted from the HTTP request to store it, and from the answer to that request as its client has it. The
    CPU is that of the control plane's process, its client's requests and these looks at it included.
    """
    found = []
    base = f"http://localhost:{await cp.api_port()}"
    async with another("writer", base) as process:
        for number in range(rounds(count)):
            permission = resource(ALLOW_ALL.replace("'*'", f"s{number % SERVICES}", 1))
            counters = [proxy.record.counters[TypeUrl.ROUTES] for proxy in cp.parts.proxies]
            expected = sum(counter.acked for counter in counters) + count
            used = cpu()
            said = aio.spawn(process.ask(json.dumps(codec.to_universal(permission))), name="the answer")
            await _acknowledged(counters, expected)
            now, used = time.perf_counter(), cpu() - used
            asked, answered = (float(text) for text in (await said).split())
            found.append((now - asked, now - answered, used / count))
            await asyncio.sleep(0.1 + count / 1000)  # not the rest of one round within the next
    return found


async def _acknowledged(counters: Sequence[Any], expected: int) -> None:
    async def ask() -> int:
        return sum(counter.acked for counter in counters)

    what = f"acknowledgements of {len(counters)} proxies, to {expected}"
    await processes.until(what, ask, lambda found: found >= expected, 0.0005 + _LOOK * len(counters))


async def measure(count: int) -> None:
    """Measures all figures for `count` proxies."""
    limit = await limits.limit(count, rounds(count))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        # All come from one address here, and more at once than usual.
        async with running(
            directory, xds_server={"port": 0, "pending_streams": 2 * count, "concurrent_streams": 2 * count}
        ) as cp:
            await cp.apply(MTLS, ALLOW_ALL)
            before = rss()
            port = str(await cp.parts.xds.port())
            async with another("clients", port, str(directory / "ca.crt"), str(count), cp.token()) as proxies:
                start = time.perf_counter()
                await settle(cp, count, proxies.process)
                ready = time.perf_counter() - start
                memory = (rss() - before) / count
                asked, answered, used = zip(*await propagation(cp, count), strict=True)
                print(f"  {count:>5} proxies, {len(answered)} rounds")
                print(f"{'':>8}from the answer:  {shown(answered)}")
                print(f"{'':>8}from the request: {shown(asked)}")
                print(f"{'':>8}the answer itself: {shown([a - b for a, b in zip(asked, answered, strict=True)])}")
                print(f"{'':>8}CPU, each proxy:  {shown(used)}")
                print(f"{'':>8}bare server:      {shown(limit.times)}, one message to every stream and back")
                print(f"{'':>8}all were connected and configured after {ready:.1f} s")
                if count >= MANY:
                    print(f"{'':>8}{memory / 1024:.0f} KiB per proxy; bare stream: {limit.memory / 1024:.0f} KiB")
                if count == max(SIZES):
                    await idle(count, limit)
                    await one_endpoint(cp, proxies)


async def idle(count: int, limit: Limit) -> None:
    """Measures what `count` proxies cost while nothing changes."""
    await asyncio.sleep(5)
    start = cpu()
    await asyncio.sleep(IDLE_SECONDS)
    used = (cpu() - start) / IDLE_SECONDS
    print(f"  idle with {count} proxies: {used:.2%} of a core; bare server with as many streams: {limit.idle:.2%}")


@contextlib.contextmanager
def generated() -> Iterator[list[str]]:
    """The names of all resources that are made and serialised within the block: seen as a profiler sees calls."""
    made: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is Entry.serialised.__code__:
            made.append(frame.f_locals["name"])

    sys.setprofile(watch)
    try:
        yield made
    finally:
        sys.setprofile(None)


async def one_endpoint(cp: Running, clients: Another) -> None:
    """Measures what is generated and sent when one endpoint of one service changes."""
    proxies = list(cp.parts.proxies)
    callers = [p for p in proxies if int(p.key.name[1:]) % SERVICES in ((7 - 1) % SERVICES, (7 - 2) % SERVICES)]
    before = {p.key: sum(c.sent for c in p.record.counters.values()) for p in proxies}
    bytes_before = int(await clients.ask())
    new = dataplane("p-new", "s7", port=9)
    with generated() as made:
        await cp.apply_resource(new)
        await asyncio.sleep(2)
    sent = {p.key: sum(c.sent for c in p.record.counters.values()) - before[p.key] for p in proxies}
    reached = sum(1 for number in sent.values() if number)
    size = int(await clients.ask()) - bytes_before
    print(
        f"  one new endpoint of one service: {len(made)} resource generated ({', '.join(sorted(set(made)))}); ", end=""
    )
    print(f"{sum(sent.values())} responses, {size:,} bytes, to {reached} proxies; {len(callers)} call that service")


def main(sizes: tuple[int, ...] = SIZES) -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print("From the answer to an HTTP PUT of a changed TrafficPermission until acknowledged by all proxies")
    print("  (below zero: they had acknowledged it before its writer had the answer)")
    for count in sizes:
        with garbage.kept_short():  # as in `kuma-cp`
            asyncio.run(measure(count))
    print("  reach: p99 <= 50 ms for one; for 1000 from the request p50 <= 90 ms, worst <= 200 ms, the answer <= 60;")
    print(f"         <= 80 KiB per proxy; idle < 1 % of a core; {machine()}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["clients"]:
        asyncio.run(clients(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]))
    elif sys.argv[1:2] == ["writer"]:
        writer(sys.argv[2])
    else:
        main(tuple(int(text) for text in sys.argv[1:]) or SIZES)
