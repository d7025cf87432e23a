"""Connections that are kept: one of each protocol, used again and again, until the other side ends it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from soak.bounds import Span

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
_BEAT = 0.2
"""Seconds between two uses."""
_PATIENCE = 10.0
_EMPTY = "content-length: 2\r\n\r\nok"
_METHOD = "/kept.Kept/"


async def serve_http(reader: Reader, writer: Writer) -> None:
    """A workload that echoes over a WebSocket, goes on answering at `/stream`, and says `ok` to everything else.

    Of a WebSocket it has the handshake only: Envoy carries what follows as it is.
    """
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if "upgrade: websocket" in head:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
                return await serve_tcp(reader, writer)
            if head.startswith("get /stream"):
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                while not writer.is_closing():
                    writer.write(b"1\r\n.\r\n")
                    await writer.drain()
                    await asyncio.sleep(_BEAT)
                return None
            writer.write(f"HTTP/1.1 200 OK\r\n{_EMPTY}".encode())
            await writer.drain()
    writer.close()
    return None


async def serve_tcp(reader: Reader, writer: Writer) -> None:
    """A workload that sends back what it gets."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
    writer.close()


class _Answers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # no generic when it runs
    def service(self, details: Any) -> Any:
        if details.method == f"{_METHOD}Unary":
            return grpc.unary_unary_rpc_method_handler(self._unary)
        return grpc.stream_stream_rpc_method_handler(self._stream)

    async def _unary(self, request: bytes, _: Any) -> bytes:
        return request

    async def _stream(self, requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


async def serve_grpc(port: int) -> Any:
    """A workload that sends back what it gets, once and in streams."""
    server = grpc.aio.server(handlers=(_Answers(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server


class Kept:
    """One connection that is used again and again. A request on it that fails is counted as one.

    `opened` is how often it, or the stream in it, was opened; `ended` is how often the other side ended that; `used` is
    how often it did what it is for.
    """

    def __init__(self, protocol: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.protocol = protocol
        self.opened = self.ended = self.used = 0
        self.refused = 0
        self.failures: list[str] = []
        self.since: float | None = None
        """When what is open now was opened, by the monotonic clock."""
        self._spans: list[Span] = []
        self._port, self._tls = port, tls
        self._streams: tuple[Reader, Writer] | None = None
        self._uses: dict[str, Callable[[], Awaitable[bool]]] = {
            "tcp": self._echo,
            "http/1.1": self._request,
            "http/2": self._unary,
            "grpc": self._stream,
            "websocket": self._echo,
            "chunked": self._chunk,
        }
        self._channel: Any = None
        self._call: Any = None

    async def run(self) -> None:
        """Use it until cancelled; open it again when it has ended."""
        try:
            while True:
                await self.use()
                await asyncio.sleep(_BEAT)
        finally:
            await self.close()

    async def use(self) -> None:
        """Use it once more."""
        try:
            async with asyncio.timeout(_PATIENCE):
                refused = self.refused
                goes_on = await self._uses[self.protocol]()
                if self.refused == refused and (goes_on or self.protocol == "http/1.1"):
                    self.used += 1
                if not goes_on:
                    await self._end()
        except (OSError, asyncio.IncompleteReadError, asyncio.InvalidStateError, grpc.aio.AioRpcError) as error:
            if self.protocol in ("http/1.1", "http/2"):
                self.failures.append(repr(error))
            await self._end()

    @property
    def spans(self) -> list[Span]:
        """From when until when it was open, each time; the last one may go on."""
        since = self.since
        return [*self._spans, *([] if since is None else [Span(since)])]

    async def _end(self) -> None:
        self.ended += 1
        if self.since is not None:
            self._spans.append(Span(self.since, time.monotonic()))
        await self.close()

    async def close(self) -> None:
        """End what is open; it is opened again when it is used."""
        if self._streams is not None:
            self._streams[1].close()
        if self._channel is not None:
            await self._channel.close()
        self._streams = self._channel = self._call = self.since = None

    async def _connection(self, opening: bytes = b"") -> tuple[Reader, Writer]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
            self._note_opened()
            if opening:
                self._streams[1].write(opening)
                head = await self._streams[0].readuntil(b"\r\n\r\n")
                status = head.split(b" ")[1].decode()
                if status not in ("101", "200"):
                    self._note(status)
                    raise ConnectionRefusedError(head)
        return self._streams

    async def _echo(self) -> bool:
        opening = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        reader, writer = await self._connection(opening if self.protocol == "websocket" else b"")
        writer.write(b"x")
        return await reader.read(1) == b"x"

    async def _chunk(self) -> bool:
        reader, _ = await self._connection(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        return await reader.readexactly(6) == b"1\r\n.\r\n"

    async def _request(self) -> bool:
        reader, writer = await self._connection()
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        self._note(head.split(" ")[1])
        return "connection: close" not in head

    def _note_opened(self) -> None:
        self.opened += 1
        self.since = time.monotonic()

    def _note(self, status: str) -> None:
        if status == "403":
            self.refused += 1
        elif status != "200":
            self.failures.append(status)

    def _grpc(self) -> Any:
        if self._channel is None:
            options = (("grpc.use_local_subchannel_pool", 1),)
            self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options)
            self._note_opened()
        return self._channel

    async def _unary(self) -> bool:
        try:
            return bool(await self._grpc().unary_unary(f"{_METHOD}Unary", None, None)(b"x"))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                raise
            self.refused += 1
            return True

    async def _stream(self) -> bool:
        if self._call is None:
            self._call = self._grpc().stream_stream(f"{_METHOD}Stream", None, None)(None)
        await self._call.write(b"x")
        answer = await self._call.read()
        return bool(answer == b"x")
