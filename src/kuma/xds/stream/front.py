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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import structlog

from kuma.base import aio
from kuma.base.system import reading, sockets
from kuma.xds.stream.connection import Connection

log = structlog.get_logger(__name__)

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
        self._named: dict[str, Connection] = {}
        self._connections: set[Connection] = set()
        self._accepted: set[asyncio.Task[Any]] = set()
        self._unknown: dict[str, dict[Connection, None]] = {}
        """Connections without a known proxy, by the address they come from, the oldest first."""
        self._count = 0
        self._is_shut: aio.Latest[bool] = aio.Latest(False)
        self._room = reading.room()

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

    def _connection(self) -> Connection:
        return Connection(self, self._limits.seconds, self._room)

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
        """End all connections, and those that are being accepted just now."""
        self.shut(True)
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

    def stream(self, name: str) -> Passed:
        """Surrounds a stream: while there is one, its own time limits hold instead of that of the connection."""
        return Passed(self, self._named.get(name))

    def admit(self, connection: Connection) -> bool:
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

    def _add(self, connection: Connection) -> None:
        self._unknown.setdefault(connection.group, {})[connection] = None
        self._count += 1

    def settle(self, connection: Connection) -> None:
        """Notes that it is known which proxy a connection is of."""
        group = self._unknown.get(connection.group, {})
        if connection in group:
            del group[connection]
            self._count -= 1
            if not group:
                del self._unknown[connection.group]

    def forget(self, connection: Connection) -> None:
        """Forgets a proxy that has left: its connection may send as much as a new one until the next is known."""
        connection.proxies -= 1
        if not connection.proxies and connection in self._connections:
            connection.sent = 0
            self._add(connection)

    def name(self, connection: Connection) -> tuple[str, str]:
        """Returns a name for the end of a connection on our side, and where the gRPC server listens."""
        self._number += 1
        own = f"{self._prefix}-{self._number}"
        connection.name = f"unix-abstract:{own}"
        self._named[connection.name] = connection
        return f"\0{own}", self._server

    def exceeds(self, connection: Connection) -> bool:
        """Tells whether too much is sent without anybody known, for one connection or for all of its address."""
        if connection.proxies:
            return False
        group = self._unknown.get(connection.group, {})
        return connection.sent > self._limits.size or (
            connection.sent > self._limits.sizes // max(1, self._limits.of_address)
            and sum(other.sent for other in group) > self._limits.sizes
        )

    def ended(self, connection: Connection) -> None:
        """Counts one connection less."""
        self.settle(connection)
        self._connections.discard(connection)
        self._named.pop(connection.name, None)


class Passed:
    """One stream over a connection that was passed on, as a context. There are thousands: it has no stack of others."""

    __slots__ = ("_connection", "_front", "_is_known")

    def __init__(self, front: Front, connection: Connection | None) -> None:
        self._front = front
        self._connection = connection
        self._is_known = False

    def __enter__(self) -> Self:
        if self._connection is not None:
            self._connection.streams += 1
        return self

    def known(self) -> None:
        """Notes that from here to its end it is known which proxy it is of."""
        if self._connection is not None and not self._is_known:
            self._is_known = True
            self._connection.proxies += 1
            self._front.settle(self._connection)

    def __exit__(self, *_: object) -> None:
        if self._connection is None:
            return
        if self._is_known:
            self._front.forget(self._connection)
        self._connection.stream_ended()
