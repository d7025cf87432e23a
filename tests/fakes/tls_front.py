"""TLS in front of a PostgreSQL that has none, by PostgreSQL's own way to begin it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from tests.fakes.relay import pass_on

_SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
"""How a client asks for TLS: PostgreSQL's protocol, message SSLRequest."""


@contextlib.asynccontextmanager
async def tls_front(context: ssl.SSLContext, port: int) -> AsyncIterator[int]:
    """A port that wants TLS and passes on to `port`; whoever does not ask for it is sent away."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(_SSL_REQUEST)) == _SSL_REQUEST:
                writer.write(b"S")
                await writer.start_tls(context)
                there, back = await asyncio.open_connection("127.0.0.1", port)
                async with asyncio.TaskGroup() as both:
                    both.create_task(pass_on(reader, back))
                    both.create_task(pass_on(there, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
