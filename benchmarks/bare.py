"""A bare gRPC server in Python that has the conversations of a control plane: the same bytes on as many streams.

It has no store, resources or state. What it costs is the limit of any control plane over `grpc.aio`.

    python -m benchmarks.bare serve DIRECTORY SENT          # sizes of messages: 100,2000,…
    python -m benchmarks.bare call PORT CA-FILE COUNT SAID
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks import processes
from benchmarks.figures import cpu, rss
from kuma.app.serving import server_certificate
from kuma.base import aio
from tests.fakes.proxy import EOF, channel

METHOD = "/bare/Talk"


class Bare:
    """Sends each stream its messages, and reads what comes."""

    def __init__(self, sent: Sequence[int]) -> None:
        self._sent = sent
        self.streams = self.heard = 0

    async def talk(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self.streams += 1
        await anext(requests)
        self.heard += 1
        for size in self._sent:
            await context.write(b"x" * size)
        async for _ in requests:
            self.heard += 1


async def serve(directory: Path, sent: Sequence[int]) -> None:
    """Serve, and answer questions."""
    bare, server = Bare(sent), grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(bare.talk)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"Talk": handler}),))
    files = server_certificate.ensure(directory, ("localhost",), datetime.now(UTC))
    pair = (files.key.read_bytes(), files.chain.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    answers = {
        "start": lambda: {"port": port, "ca": str(files.ca)},
        "state": lambda: {"cpu": cpu(), "memory": rss(), "connected": bare.streams, "heard": bare.heard},
    }
    await processes.answer(answers)
    await server.stop(grace=None)


async def call(port: int, ca_file: Path, count: int, said: Sequence[int]) -> None:
    """Open streams, each on a connection of its own, and say on each what is to be said, as answers to what comes."""

    async def one(to: grpc.aio.Channel) -> None:
        open_stream: Any = to.stream_stream
        stream = open_stream(METHOD)()
        left = list(said)
        await stream.write(b"x" * left.pop(0))
        while await stream.read() is not EOF:
            while left:
                await stream.write(b"x" * left.pop(0))

    async with contextlib.AsyncExitStack() as stack:
        pem = ca_file.read_bytes()
        channels = [await stack.enter_async_context(channel(port, pem)) for _ in range(count)]
        tasks = [aio.spawn(one(to), name="caller") for to in channels]
        await processes.answer({"done": lambda: sum(task.done() for task in tasks)})


def _sizes(text: str) -> Sequence[int]:
    return [int(size) for size in text.split(",")]


if __name__ == "__main__":
    given = sys.argv
    if given[1] == "serve":
        asyncio.run(serve(Path(given[2]), _sizes(given[3])))
    else:
        asyncio.run(call(int(given[2]), Path(given[3]), int(given[4]), _sizes(given[5])))
