"""An HTTP server as a component: uvicorn without its command line, signals and global state."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import nullcontext, suppress
from typing import Any

import structlog
import uvicorn
from uvicorn.server import ServerState

from kuma.api.http import connections
from kuma.api.http.client_certificates import ClientCertificates
from kuma.api.http.connections import Connection, ConnectionLimits, Open
from kuma.api.http.slices import Slices
from kuma.base import aio
from kuma.base.system import sockets
from kuma.base.system.peer_users import PeerUsers
from kuma.base.tls.server_identity import ServerIdentity
from kuma.base.values import addresses, urls

log = structlog.get_logger(__name__)

_GOODBYE = 5.0
"""Seconds that TLS may take to say goodbye."""
_PAUSE = 0.1
"""Seconds after which a connection is accepted again when it cannot be: when there are too many open files, say."""


class HttpServer(sockets.OnPort):
    """Serves one application on one port, in the clear or (with `tls`) over TLS 1.2 or later.

    Over TLS, it may ask its `clients` for certificates. With `peers` the application is told whose process it is that
    calls from this machine (see `callers.LOCAL_USER`).
    """

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        *,
        setting: str,
        tls: ServerIdentity | None = None,
        clients: ClientCertificates | None = None,
        limits: ConnectionLimits | None = None,
        peers: PeerUsers | None = None,
        listen: sockets.Listen = sockets.listening,
    ) -> None:
        super().__init__(host, port, setting, listen)
        self._peers = peers
        self._limits = limits or ConnectionLimits()
        self._app = connections.told_of_the_end(
            connections.that_may_end(connections.with_sound_heads(app, self._limits), lambda: self._is_shut.value)
        )
        self._tls = tls
        self._clients = clients
        self._is_shut: aio.Latest[bool] = aio.Latest(False)
        self._state = ServerState()

    @property
    def is_shut(self) -> bool:
        """Tells whether it takes no connections."""
        return self._is_shut.value

    def shut(self, is_shut: bool) -> None:
        """Take no connections, and end those that there are once they are answered; or take them again.

        Connections wait at the port meanwhile, for another process that accepts from the same socket.
        """
        if is_shut is self._is_shut.value:
            return
        self._is_shut.set(is_shut)
        for connection in tuple(self._state.connections) if is_shut else ():
            if not connection.transport.is_closing():
                connection.shutdown()

    async def url(self) -> str:
        """Returns the URL at which clients reach it; usable once it listens."""
        host = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(self._host, self._host)  # noqa: S104
        return f"{'https' if self._tls else 'http'}://{urls.host_port(host, await self.port())}"

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            Misconfigured: the port is in use; names the setting.
        """
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            http="h11",
            ws="none",
            h11_max_incomplete_event_size=self._limits.head_bytes,
            ssl_context_factory=(lambda *_: self._context(tls)) if (tls := self._tls) else None,
        )
        if tls is not None:
            tls.on_change(lambda: setattr(config, "ssl", self._context(tls)))
        server = _Server(config, self._limits, self._clients, self._peers, self._is_shut)
        self._state = server.server_state
        with self._listen() as listener:
            self._bound.set(listener.getsockname()[1])
            serving = aio.spawn(server.serve(sockets=[listener]), name=f"HTTP on port {self._bound.value}")
            try:
                await asyncio.shield(serving)
            finally:
                server.should_exit = True
                with suppress(asyncio.CancelledError):
                    await serving

    def _context(self, identity: ServerIdentity) -> ssl.SSLContext:
        made = identity.context()
        if self._clients is not None:
            self._clients.ask(made)
        return made


class _Server(uvicorn.Server):
    """Accepts by itself, so that a connection counts from its first packet on, and not only after a TLS handshake."""

    def __init__(
        self,
        config: uvicorn.Config,
        limits: ConnectionLimits,
        clients: ClientCertificates | None,
        peers: PeerUsers | None,
        is_shut: aio.Latest[bool],
    ) -> None:
        super().__init__(config)
        self._is_shut = is_shut
        self._peers = peers
        self._clients = clients
        self._limits = limits
        self._open = Open(limits)
        self._slices = Slices()
        self._tasks: set[asyncio.Task[None]] = set()

    def capture_signals(self) -> Any:
        """Signals are the program's business, not a component's."""
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        self.servers = []
        for listener in sockets or ():
            self._spawn(self._accept(listener), "accepting connections")
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and let the requests that are being answered come to their end."""
        await aio.stop(self._tasks)
        await super().shutdown(sockets)

    def _spawn(self, coroutine: Any, name: str) -> None:
        task = aio.spawn(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            await self._somebody(listener)
            try:
                accepted, (address, *_) = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # another process has it, or it is gone
            except OSError as error:
                log.warning("a connection cannot be accepted", reason=error.strerror)
                await asyncio.sleep(_PAUSE)
                continue
            accepted.setblocking(False)
            problem = self._open.admit(address)
            if problem is None:
                self._spawn(self._connect(accepted, address), f"connection of {address}")
                continue
            with accepted, suppress(OSError):
                if self.config.ssl is None:
                    accepted.send(connections.refusal(problem))

    async def _somebody(self, listener: socket.socket) -> None:
        """Return when a connection waits, and may be taken. (`sock_accept` takes it at once, and may lose it.)"""
        loop = asyncio.get_running_loop()
        while True:
            while self._is_shut.value:
                await self._is_shut.newer_than(self._is_shut.version)
            waits = asyncio.Event()
            loop.add_reader(listener, waits.set)
            try:
                await waits.wait()
            finally:
                loop.remove_reader(listener)
            if not self._is_shut.value:
                return

    async def _connect(self, accepted: socket.socket, address: str) -> None:
        """Shake hands; from then on the connection lives by itself."""
        counted = True

        def release() -> None:
            nonlocal counted
            if counted:
                counted = False
                self._open.release(address)

        def protocol() -> Connection:
            return Connection(self.config, self.server_state, self._limits, self._slices, release, self._clients, user)

        times = {"ssl_handshake_timeout": self._limits.handshake, "ssl_shutdown_timeout": _GOODBYE}
        try:
            asked = self._peers if addresses.is_loopback(address) else None
            user = await asked.user(accepted) if asked is not None else None
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol, accepted, ssl=self.config.ssl, **(times if self.config.ssl else {})
            )
        except OSError as error:
            release()  # the client is gone, does not speak TLS, or shows a certificate that does not hold
            if self._clients is not None and isinstance(error, ssl.SSLCertVerificationError):
                self._clients.on_refusal(address, error.verify_message)
        except asyncio.CancelledError:
            release()
            raise
