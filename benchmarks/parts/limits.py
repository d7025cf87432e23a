"""Measures the upper limit for any control plane in Python: a bare grpc.aio server over TLS with N streams.

It has no store, resources or state: a message of some bytes goes to every stream, and every client sends as much back.

    python -m benchmarks.parts.limits STREAMS ROUNDS      # prints JSON; see `Limit`
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.parts import processes
from benchmarks.parts.figures import cpu, rss
from benchmarks.parts.processes import Unmeasured
from kuma.app.serving import server_certificate
from tests.fakes.proxy import channel

MESSAGE = b"x" * 2000
IDLE_SECONDS = 8.0
CHANNELS = 20


@dataclass(frozen=True)
class Limit:
    """Seconds per round, bytes of memory per stream, and the share of a core that it takes to do nothing."""

    times: list[float]
    memory: float
    idle: float


class Bare:
    """The server: knows its streams, and counts what comes back."""

    def __init__(self) -> None:
        self.streams: list[Any] = []
        self.received = 0

    async def serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self.streams.append(context)
        async for _ in requests:
            self.received += 1

    async def round(self) -> float:
        """Seconds until every stream has sent back what it got."""
        expected, start = self.received + len(self.streams), time.perf_counter()
        await asyncio.gather(*(stream.write(MESSAGE) for stream in self.streams))

        async def ask() -> int:
            return self.received

        what = f"messages that have come back, to {expected}"
        await processes.until(what, ask, lambda found: found >= expected, 0.0005)
        return time.perf_counter() - start


async def measure(count: int, rounds: int) -> Limit:
    """Start the server, and the clients in another process."""
    bare, server = Bare(), grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(bare.serve)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"Echo": handler}),))
    with tempfile.TemporaryDirectory() as name:
        files = server_certificate.ensure(Path(name), ("localhost",), datetime.now(UTC))
        pair = (files.key.read_bytes(), files.chain.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        await server.start()
        before = rss()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.parts.limits", "clients", str(port), str(files.ca), str(count)
        )
        try:

            async def ask() -> int:
                if process.returncode is not None:
                    raise Unmeasured("the clients have ended")
                return len(bare.streams)

            await processes.until(f"streams of {count}", ask, lambda found: found >= count, 0.05)
            await asyncio.sleep(1)
            await bare.round()
            times = [await bare.round() for _ in range(rounds)]
            memory = (rss() - before) / count
            start = cpu()
            await asyncio.sleep(IDLE_SECONDS if count >= 1000 else 0)
            return Limit(times, memory, (cpu() - start) / IDLE_SECONDS)
        finally:
            process.kill()
            await process.wait()
            await server.stop(grace=None)


async def clients(port: int, ca_file: str, count: int) -> None:
    """The other process: sends back whatever comes, until it is killed."""

    async def echo(to: grpc.aio.Channel) -> None:
        call = open_stream(to)("/bare/Echo")()
        await call.write(MESSAGE)
        async for message in call:
            await call.write(message)

    async with contextlib.AsyncExitStack() as stack:
        pem = Path(ca_file).read_bytes()
        channels = [await stack.enter_async_context(channel(port, pem)) for _ in range(min(count, CHANNELS))]
        await asyncio.gather(*(echo(channels[number % len(channels)]) for number in range(count)))


def open_stream(to: grpc.aio.Channel) -> Any:
    return to.stream_stream


async def limit(count: int, rounds: int) -> Limit:
    """Measured in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.parts.limits", str(count), str(rounds), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return Limit(**json.loads(output))


if __name__ == "__main__":
    if sys.argv[1] == "clients":
        asyncio.run(clients(int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
    else:
        print(json.dumps(asdict(asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2]))))))
