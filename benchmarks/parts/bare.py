"""A bare gRPC server in Python that has the conversations of a control plane: the same bytes on as many streams.

It has no store, resources or state. What it costs is the limit of any control plane over `grpc.aio`. CONVERSATIONS are
in JSON, of each the sizes of what a stream is sent and of what it says: {"first": [[100, 2000], [500, 60, 60]], …}.

    python -m benchmarks.parts.bare serve DIRECTORY CONVERSATIONS
    python -m benchmarks.parts.bare call PORT[,PORT…] CA-FILE COUNT CONVERSATIONS
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.parts import processes
from benchmarks.parts.connections import connection
from benchmarks.parts.figures import cpu, rss
from kuma.app.serving import server_certificate
from kuma.base import aio
from tests.fakes.proxy import EOF

METHOD = "/bare/Talk"
_BACK = (("back", "yes"),)
"""Metadata of a stream of a client that has had another before."""


@dataclass(frozen=True)
class Talk:
    """Sizes of what one stream is sent, and of what it says meanwhile."""

    sent: Sequence[int] = ()
    said: Sequence[int] = ()


@dataclass(frozen=True)
class Talks:
    """What a stream begins with, what one begins with whose client comes back, and what follows when that is asked."""

    first: Talk = field(default_factory=Talk)
    back: Talk = field(default_factory=Talk)
    more: Talk = field(default_factory=Talk)

    def text(self) -> str:
        """As an argument of another process."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Talks:
        return cls(**{name: Talk(**talk) for name, talk in json.loads(text).items()})


class Bare:
    """Sends each stream its messages, and reads what comes."""

    def __init__(self, talks: Talks) -> None:
        self._talks = talks
        self._open: dict[Any, int] = {}
        """Of each stream, how many messages it is still to say."""

    @property
    def connected(self) -> int:
        return len(self._open)

    @property
    def done(self) -> int:
        """How many of the streams have said all that they had to."""
        return sum(left <= 0 for left in self._open.values())

    async def talk(self, requests: AsyncIterator[bytes], context: Any) -> None:
        is_back = _BACK[0] in tuple(context.invocation_metadata())
        begun = self._talks.back if is_back else self._talks.first
        await anext(requests)
        self._open[context] = len(begun.said) - 1
        try:
            await _send(context, begun.sent)
            async for _ in requests:
                self._open[context] -= 1
        finally:
            del self._open[context]

    async def more(self) -> None:
        """Begin what follows, with all streams."""
        for context in self._open:
            self._open[context] += len(self._talks.more.said)
        await asyncio.gather(*(_send(context, self._talks.more.sent) for context in list(self._open)))


async def _send(context: Any, sizes: Sequence[int]) -> None:
    for size in sizes:
        await context.write(b"x" * size)


async def serve(directory: Path, talks: Talks) -> None:
    """Serve, and answer questions."""
    bare, server = Bare(talks), grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(bare.talk)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"Talk": handler}),))
    files = server_certificate.ensure(directory, ("localhost",), datetime.now(UTC))
    pair = (files.key.read_bytes(), files.chain.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    answers = {
        "start": lambda: {"port": port, "ca": str(files.ca)},
        "state": lambda: {"cpu": cpu(), "memory": rss(), "connected": bare.connected, "done": bare.done},
        "more": bare.more,
    }
    await processes.answer(answers)
    await server.stop(grace=None)


async def call(ports: Sequence[int], ca_file: Path, count: int, talks: Talks) -> None:
    """Have streams, each on a connection of its own; one that ends is opened again, as of a client that comes back."""
    async with contextlib.AsyncExitStack() as stack:
        pem, tasks = ca_file.read_bytes(), []
        for number in range(count):
            to = await stack.enter_async_context(connection([*ports[number % len(ports) :], *ports], pem))
            tasks.append(aio.spawn(_keep(to, talks), name="caller"))
        await processes.answer({})


async def _keep(to: grpc.aio.Channel, talks: Talks) -> None:
    begins = talks.first
    metadata: Sequence[tuple[str, str]] = ()
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await _converse(to, begins, talks.more, metadata)
        begins, metadata = talks.back, _BACK
        await asyncio.sleep(0.2)


async def _converse(to: grpc.aio.Channel, begins: Talk, more: Talk, metadata: Sequence[tuple[str, str]]) -> None:
    """Say on a stream what is to be said, as answers to what comes."""
    open_stream: Any = to.stream_stream
    stream = open_stream(METHOD)(metadata=metadata, wait_for_ready=True)
    await stream.write(b"x" * begins.said[0])
    answers = {1: begins.said[1:], len(begins.sent) + 1: more.said}
    heard = 0
    while await stream.read() is not EOF:
        heard += 1
        for size in answers.get(heard, ()):
            await stream.write(b"x" * size)


@dataclass(frozen=True)
class Limit:
    """What the same costs bare servers: seconds of CPU of all of them, seconds by the clock, and bytes of memory."""

    cpu: float
    wall: float
    memory: int = 0


def cost(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], wall: float) -> Limit:
    """What has been used meanwhile by some servers together."""
    used, memory = (
        sum(now[what] - then[what] for now, then in zip(after, before, strict=True)) for what in ("cpu", "memory")
    )
    return Limit(used, wall, int(memory))


if __name__ == "__main__":
    given = sys.argv
    if given[1] == "serve":
        asyncio.run(serve(Path(given[2]), Talks.of(given[3])))
    else:
        served = [int(port) for port in given[2].split(",")]
        asyncio.run(call(served, Path(given[3]), int(given[4]), Talks.of(given[5])))
