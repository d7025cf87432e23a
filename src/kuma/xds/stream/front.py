"""Stands before the gRPC server: what anybody may hold open or send, before a stream has shown whose it is, is bounded.

gRPC itself bounds neither how many connections there are nor what a half handshake or headers without an end take up.
So connections are accepted here, counted, and passed on as they are, TLS and all, over a Unix socket that nobody else
can reach: it has no name any more once gRPC listens there. gRPC names a peer by the name of that socket's other end,
from which its address is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from kuma.base import aio
from kuma.base.system import sockets
from kuma.base.values import addresses

log = structlog.get_logger(__name__)

_HANDSHAKE = 0x16
"""How a TLS connection begins: with a record of this type (RFC 8446 §5.1)."""
_RECORD_HEAD = 5
SLICE, _PAUSE = 16 * 1024, 0.005
"""Bytes of a connection that are passed on at a time, and seconds until the next. What gRPC has decided about the
first, such as to end a connection that only sends pings, it carries out before it has the next: with two megabytes of
pings before it, it computes for ten seconds."""
_BREATH = 0.01
"""Seconds in which nothing is done when a connection cannot be accepted: when there are too many open files, say."""


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Limits of connections that have no stream of a known proxy. Times are in seconds.

    `of_address` at once from one address, `unknown` from all; `size` and `sizes` are the bytes that one of them, and
    all of an address, may send. `seconds` without any stream end one. `total` is the limit of all connections.
    """

    of_address: int = 500
    unknown: int = 2000
    total: int = 12_000
    size: int = 2 << 20
    sizes: int = 32 << 20
    seconds: float = 30.0


class Front:
    """Passes connections on to the gRPC server that listens at `path`."""

    def __init__(self, limits: FrontLimits) -> None:
        self._limits = limits
        self._directory, self._socket = contextlib.ExitStack(), contextlib.ExitStack()
        self._prefix = f"kuma-cp-{secrets.token_hex(16)}"
        self._server = ""
        self._number = 0
        self._named: dict[str, _Connection] = {}
        self._connections: set[_Connection] = set()
        self._accepted: set[asyncio.Task[Any]] = set()
        self._unknown: dict[str, dict[_Connection, None]] = {}
        """Connections without a known proxy, by the address they come from, the oldest first."""
        self._count = 0
        self._is_shut: aio.Latest[bool] = aio.Latest(False)

    def open(self) -> str:
        """Opens the front, and returns where the gRPC server is to listen, in its own notation; then call `listening`.

        On a disk that is full no directory can be made: then the name is one that nobody guesses (unix(7), abstract).
        """
        try:
            home = self._directory.enter_context(tempfile.TemporaryDirectory(prefix="kuma-cp-"))
        except OSError:
            self._server = f"\0{self._prefix}"
            return f"unix-abstract:{self._prefix}"
        self._server = str(Path(home) / "grpc")
        return f"unix:{self._server}"

    def listening(self) -> None:
        """Takes the gRPC server's socket out of the file system, and holds it open.

        Whatever clears directories of temporary files cuts off nobody, and a process that is killed leaves nothing.
        """
        if self._server.startswith("\0"):
            return
        held = os.open(self._server, os.O_PATH)
        self._socket.callback(os.close, held)
        self._directory.close()
        self._server = f"/proc/self/fd/{held}"  # leads to what is open, whatever has become of its name (proc(5))

    async def serve(self, listener: socket.socket, *, is_shared: bool = False) -> None:
        """Accept connections until cancelled; what has not been passed on by then is ended.

        From a socket that is shared others accept, too: one is taken at a time, so that whoever has time takes the
        next, and none while this front is shut.
        """
        try:
            if is_shared:
                await self._share(listener)
            else:
                loop = asyncio.get_running_loop()
                server = await loop.create_server(self._connection, sock=listener, backlog=sockets.BACKLOG)
                await server.serve_forever()
        finally:
            for connection in tuple(self._connections):
                connection.end_unless_passed_on()

    def _connection(self) -> _Connection:
        return _Connection(self, self._limits)

    async def _share(self, listener: socket.socket) -> None:
        """Accepts by itself: a server of asyncio takes all that wait, and cancelling `sock_accept` may lose one."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                version = self._is_shut.version
                if self._is_shut.value:
                    loop.remove_reader(listener)
                else:
                    loop.add_reader(listener, self._accept, listener)
                await self._is_shut.newer_than(version)
        finally:
            loop.remove_reader(listener)
            await aio.stop(self._accepted)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # somebody else has it, or it is gone
        except OSError as error:
            log.warning("a connection cannot be accepted", reason=error.strerror)
            time.sleep(_BREATH)  # others may take it meanwhile
            return
        accepted.setblocking(False)
        passing = asyncio.get_running_loop().connect_accepted_socket(self._connection, accepted)
        task = aio.spawn(passing, name="accepted connection")
        self._accepted.add(task)
        task.add_done_callback(self._accepted.discard)

    def close(self) -> None:
        """End all connections."""
        self._end_all()
        self._directory.close()
        self._socket.close()

    @property
    def is_shut(self) -> bool:
        """Tells whether it takes no connections."""
        return self._is_shut.value

    def shut(self, is_shut: bool) -> None:
        """Ends all connections and takes none, so that proxies go elsewhere; or takes them again."""
        self._is_shut.set(is_shut)
        if is_shut:
            self._end_all()

    def _end_all(self) -> None:
        for connection in tuple(self._connections):
            connection.end()

    def peer(self, name: str) -> str:
        """Returns who is at the other end of what gRPC calls `name`, such as `ipv4:10.0.0.1:5000`."""
        found = self._named.get(name)
        return found.peer if found is not None else name

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[None]:
        """Surrounds a stream: while there is one, its own time limits hold instead of that of the connection."""
        with contextlib.ExitStack() as stack:
            if (found := self._named.get(name)) is not None:
                found.streams += 1
                stack.callback(found.stream_ended)
            yield

    @contextlib.contextmanager
    def known(self, name: str) -> Iterator[None]:
        """Surrounds the part of a stream in which it is known which proxy it is of."""
        with contextlib.ExitStack() as stack:
            if (found := self._named.get(name)) is not None:
                found.proxies += 1
                self._settle(found)
                stack.callback(self._forget, found)
            yield

    def admit(self, connection: _Connection) -> bool:
        """Counts one more connection, if there may be one; ends one of whoever holds the most, if need be."""
        if self._is_shut.value:
            return False
        mine = self._unknown.get(connection.group, {})
        if len(mine) >= self._limits.of_address or len(self._connections) >= self._limits.total:
            return False
        if self._count >= self._limits.unknown:
            most = max(self._unknown.values(), key=len)
            if len(most) <= len(mine):
                return False
            next(iter(most)).end()
        self._connections.add(connection)
        self._add(connection)
        return True

    def _add(self, connection: _Connection) -> None:
        self._unknown.setdefault(connection.group, {})[connection] = None
        self._count += 1

    def _settle(self, connection: _Connection) -> None:
        group = self._unknown.get(connection.group, {})
        if connection in group:
            del group[connection]
            self._count -= 1
            if not group:
                del self._unknown[connection.group]

    def _forget(self, connection: _Connection) -> None:
        """Forgets a proxy that has left: its connection may send as much as a new one until the next is known."""
        connection.proxies -= 1
        if not connection.proxies and connection in self._connections:
            connection.sent = 0
            self._add(connection)

    def name(self, connection: _Connection) -> tuple[str, str]:
        """Returns a name for the end of a connection on our side, and where the gRPC server listens."""
        self._number += 1
        own = f"{self._prefix}-{self._number}"
        connection.name = f"unix-abstract:{own}"
        self._named[connection.name] = connection
        return f"\0{own}", self._server

    def exceeds(self, connection: _Connection) -> bool:
        """Tells whether too much is sent without anybody known, for one connection or for all of its address."""
        if connection.proxies:
            return False
        group = self._unknown.get(connection.group, {})
        return connection.sent > self._limits.size or (
            connection.sent > self._limits.sizes // max(1, self._limits.of_address)
            and sum(other.sent for other in group) > self._limits.sizes
        )

    def ended(self, connection: _Connection) -> None:
        """Counts one connection less."""
        self._settle(connection)
        self._connections.discard(connection)
        self._named.pop(connection.name, None)


class _Connection(asyncio.Protocol):
    """The client's side. Nothing is passed on before a whole first TLS record is there."""

    def __init__(self, front: Front, limits: FrontLimits) -> None:
        self._front = front
        self._limits = limits
        self._transport: Any = None
        self._server: _Server | None = None
        self._first: bytearray | None = bytearray()
        self._connecting: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._kept = bytearray()
        self._room, self._slice_begins = SLICE, 0.0
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
        if self._front.admit(self):
            self._watch()
        else:
            transport.abort()

    def _watch(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._limits.seconds, self._too_slow)

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

    def data_received(self, data: bytes) -> None:
        if not self.proxies:
            self.sent += len(data)
            if self._front.exceeds(self):
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
            self._room, self._slice_begins = SLICE, now
        some = bytes(self._kept[: self._room])
        del self._kept[: self._room]
        self._room -= len(some)
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
        own, path = self._front.name(self)
        passing = socket.socket(socket.AF_UNIX)
        passing.setblocking(False)
        try:
            passing.bind(own)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(passing, path)
            _, server = await loop.create_unix_connection(lambda: _Server(self._transport, self.hold), sock=passing)
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
        self._front.ended(self)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        if self._server is not None:
            self._server.pause()

    def resume_writing(self) -> None:
        if self._server is not None:
            self._server.resume()


class _Server(asyncio.Protocol):
    """The gRPC server's side."""

    def __init__(self, client: Any, hold: Callable[[bool], None]) -> None:
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

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.close()

    def pause_writing(self) -> None:
        self._hold(True)

    def resume_writing(self) -> None:
        self._hold(False)
