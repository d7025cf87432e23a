"""What it costs a real Envoy to report its callers: CPU time at 1,000 requests a second, beside the same without it.

python -m benchmarks.bench_observed [SECONDS]
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from tests.fakes.control_plane import ALLOW_ALL, MTLS, running
from tests.integration.sidecars import sidecars

RATE, CONNECTIONS = 1000, 10
SECONDS = 15.0
ROUNDS = 5


def used(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def calls(port: int, end: float) -> int:
    """Calls one after the other on a connection, as often as one of several has to; returns how often."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < end:
        if count * CONNECTIONS / RATE > now - start:
            await asyncio.sleep(0.002)
            continue
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        count += 1
    writer.close()
    return count


async def cost(observed: bool, seconds: float) -> float:
    """CPU time of the called service's Envoy for each request, in microseconds."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        section = {"port": 0, "observed_traffic": observed}
        async with running(directory, xds_server=section) as cp, sidecars(cp, directory) as mesh:
            await cp.apply(MTLS, ALLOW_ALL)
            web, backend = await mesh.pair()
            before, end = used(backend.envoy), time.perf_counter() + seconds
            counts = await asyncio.gather(*(calls(web.outbounds["backend"], end) for _ in range(CONNECTIONS)))
            return (used(backend.envoy) - before) / sum(counts) * 1e6


def main(seconds: float = SECONDS) -> None:
    """Print the figures. Rounds with and without take turns: what else the machine does is in both."""
    print(
        f"CPU time of an Envoy per request, {RATE} requests a second over {CONNECTIONS} connections, best of {ROUNDS}"
    )
    rounds = [(asyncio.run(cost(False, seconds)), asyncio.run(cost(True, seconds))) for _ in range(ROUNDS)]
    without, with_it = (sorted(column) for column in zip(*rounds, strict=True))
    print(f"  without reports {_shown(without)}, with them {_shown(with_it)}: {with_it[0] / without[0] - 1:+.1%}")
    print("  bound: 3 %; less than the rounds differ among themselves says nothing\n")


def _shown(figures: Sequence[float]) -> str:
    return f"{figures[0]:.1f} µs (worst {figures[-1]:.1f})"


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    main(*(float(text) for text in sys.argv[1:]))
