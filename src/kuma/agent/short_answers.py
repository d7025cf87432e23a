"""A small HTTP server for orchestrators and load balancers: one request without a body, one line as the answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from http.client import responses

import h11

_PATIENCE = 5.0
"""Seconds that a client has for its request, and to take the answer."""
_LONGEST = 16 * 1024
"""Bytes of a request."""
_MOST, _MOST_EACH = 256, 32
"""Connections at once, in all and of one address. For more, those end that have asked nothing, the oldest first."""
_PIECE = 4096
"""Bytes that are taken in at a time."""


class ShortAnswers:
    """Answers each request with a status and a line of text, and closes its connection."""

    def __init__(self, listener: socket.socket, answer: Callable[[h11.Request], Awaitable[tuple[int, str]]]) -> None:
        self._listener = listener
        self._answer = answer
        self._open = Counter[str]()
        """Connections by the addresses that they come from."""
        self._silent: dict[asyncio.StreamWriter, str] = {}
        """The connections of which no whole request has come, with these addresses, the oldest first."""

    async def run(self) -> None:
        """Answer until cancelled."""
        async with await asyncio.start_server(self._connected, sock=self._listener, limit=_LONGEST) as server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("",))[0])
        if not self._has_room(address):
            writer.transport.abort()
            return
        self._open[address] += 1
        self._silent[writer] = address
        try:
            await self._converse(reader, writer)
        finally:
            self._silent.pop(writer, None)
            self._open -= Counter([address])  # and forget those who have none

    def _has_room(self, address: str) -> bool:
        """Tells whether there may be one more of an address; ends one that has asked nothing, if need be."""
        is_full = self._open[address] >= _MOST_EACH
        if not is_full and self._open.total() < _MOST:
            return True
        oldest = next((writer for writer, other in self._silent.items() if other == address or not is_full), None)
        if oldest is None:
            return False
        del self._silent[oldest]
        oldest.transport.abort()
        return True

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            response = await self._response(reader, writer)
            async with asyncio.timeout(_PATIENCE):
                writer.write(response)
                await writer.drain()
        except (TimeoutError, OSError, EOFError):
            pass  # whoever does not wait is told nothing
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _response(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST)
        try:
            async with asyncio.timeout(_PATIENCE):
                request = await _request(connection, reader)
        except h11.RemoteProtocolError as error:
            return b"".join(_parts(connection, error.error_status_hint, "this is no request of HTTP"))
        self._silent.pop(writer, None)
        head, body = _parts(connection, *await self._answer(request))
        return head if request.method == b"HEAD" else head + body


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request:
    """Reads until a request is there.

    Raises:
        h11.RemoteProtocolError: it is no HTTP, or too long.
        EOFError: the client has gone before.
    """
    while (found := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(_PIECE))
    if not isinstance(found, h11.Request):
        raise EOFError
    return found


def _parts(connection: h11.Connection, status: int, text: str) -> tuple[bytes, bytes]:
    """Returns head and body of an answer."""
    body = f"{text}\n".encode()
    headers = [("content-type", "text/plain"), ("content-length", str(len(body))), ("connection", "close")]
    reason = responses.get(status, "")
    head = connection.send(h11.Response(status_code=status, headers=headers, reason=reason))
    assert head is not None
    return head, body
