"""One connection before the gRPC server, passed on as it is, slice by slice, over a Unix socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from kuma.base import aio
from kuma.base.system.reading import Reading
from kuma.base.values import addresses

log = structlog.get_logger(__name__)

_HANDSHAKE = 0x16
"""How a TLS connection begins: with a record of this type (RFC 8446 §5.1)."""
_RECORD_HEAD = 5
SLICE, _PAUSE = 16 * 1024, 0.005
"""Bytes of a connection that are passed on at a time, and seconds until the next. What gRPC has decided about the
first, such as to end a connection that only sends pings, it carries out before it has the next: with two megabytes of
pings before it, it computes for ten seconds."""


class Bounds(Protocol):
    """Bounds that connections have in common: how many there may be, and how much they may send."""

    def admit(self, connection: Connection, /) -> bool:
        """Counts one more connection, if there may be one."""

    def exceeds(self, connection: Connection, /) -> bool:
        """Tells whether too much is sent."""

    def name(self, connection: Connection, /) -> tuple[str, str]:
        """Returns a name for the end of a connection on our side, and where the gRPC server listens."""

    def ended(self, connection: Connection, /) -> None:
        """Counts one connection less."""


class Connection(Reading):
    """The client's side. Nothing is passed on before a whole first TLS record is there."""

    def __init__(self, bounds: Bounds, seconds: float, room: memoryview) -> None:
        """It may be without any stream for so many seconds; what it says is read into `room`, see `reading`."""
        super().__init__(room)
        self._bounds = bounds
        self._seconds = seconds
        self._transport: Any = None
        self._server: _Server | None = None
        self._first: bytearray | None = bytearray()
        self._connecting: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._kept = bytearray()
        self._allowance, self._slice_begins = SLICE, 0.0
        self._next_slice: asyncio.TimerHandle | None = None
        self._is_held = False
        """Whether the gRPC server takes no more for now."""
        self.group = self.peer = self.name = ""
        self.sent = self.streams = self.proxies = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        address = transport.get_extra_info("peername") or ("", 0)
        self.peer = f"ipv6:%5B{address[0]}%5D:{address[1]}" if ":" in address[0] else f"ipv4:{address[0]}:{address[1]}"
        self.group = addresses.holder(address[0])
        if self._bounds.admit(self):
            self._watch()
        else:
            transport.abort()

    def _watch(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._seconds, self._too_slow)

    def _too_slow(self) -> None:
        if not self.streams:
            log.info("connection ended: it had no stream in time", peer=self.peer)
            self.end()

    def stream_ended(self) -> None:
        """Counts a stream less; without any, the time runs again."""
        self.streams -= 1
        if not self.streams:
            if self._deadline is not None:
                self._deadline.cancel()
            self._watch()

    def received(self, data: bytes) -> None:
        if not self.proxies:
            self.sent += len(data)
            if self._bounds.exceeds(self):
                log.warning("connection ended: too much sent by nobody known", peer=self.peer, bytes=self.sent)
                self.end()
                return
        if self._server is not None:
            self._kept += data
            self._pass_on(self._server)
        elif self._first is not None:
            self._first += data
            self._begin(self._first)

    def _pass_on(self, server: _Server) -> None:
        """Passes a slice on, and the next one a moment later; until all has been, no more is read."""
        if self._next_slice is not None:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._slice_begins + _PAUSE:
            self._allowance, self._slice_begins = SLICE, now
        some = bytes(self._kept[: self._allowance])
        del self._kept[: self._allowance]
        self._allowance -= len(some)
        server.write(some)
        if self._kept:
            self._next_slice = asyncio.get_running_loop().call_later(_PAUSE, self._go_on, server)
            self._transport.pause_reading()

    def _go_on(self, server: _Server) -> None:
        self._next_slice = None
        if not self._transport.is_closing():
            self._pass_on(server)
            self._read()

    def hold(self, is_held: bool) -> None:
        """Reads no more while the gRPC server takes no more."""
        self._is_held = is_held
        self._transport.pause_reading() if is_held else self._read()

    def _read(self) -> None:
        if not self._is_held and self._next_slice is None:
            self._transport.resume_reading()

    def _begin(self, first: bytearray) -> None:
        if first[0] != _HANDSHAKE:
            self.end()
        elif self._connecting is None and len(first) >= _RECORD_HEAD + int.from_bytes(first[3:_RECORD_HEAD].ljust(2)):
            self._connecting = aio.spawn(self._connect(), name=f"connection of {self.peer}")

    async def _connect(self) -> None:
        """Passes on what has come, and from then on what comes."""
        own, path = self._bounds.name(self)
        passing = socket.socket(socket.AF_UNIX)
        passing.setblocking(False)
        try:
            passing.bind(own)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(passing, path)
            _, server = await loop.create_unix_connection(self._server_side, sock=passing)
        except OSError as error:
            if not self._transport.is_closing():
                log.warning("connection not passed on", peer=self.peer, reason=error.strerror)
            passing.close()
            self.end()
            return
        self._server = server
        if self._transport.is_closing():
            server.end()
        elif self._first:
            self._kept += self._first
            self._pass_on(server)
        self._first = None

    def _server_side(self) -> _Server:
        return _Server(self._transport, self.hold, self._room)

    def end(self) -> None:
        """Ends the connection at once."""
        self._transport.abort()

    def end_unless_passed_on(self) -> None:
        """Ends the connection if the gRPC server does not have it: it accepts no more."""
        if self._server is None:
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in filter(None, (self._deadline, self._next_slice)):
            timer.cancel()
        if self._server is not None:
            self._server.end()
        self._bounds.ended(self)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        if self._server is not None:
            self._server.pause()

    def resume_writing(self) -> None:
        if self._server is not None:
            self._server.resume()


class _Server(Reading):
    """The gRPC server's side."""

    def __init__(self, client: Any, hold: Callable[[bool], None], room: memoryview) -> None:
        super().__init__(room)
        self._client = client
        self._hold = hold
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def end(self) -> None:
        self._transport.close()

    def received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.close()

    def pause_writing(self) -> None:
        self._hold(True)

    def resume_writing(self) -> None:
        self._hold(False)
